package execseam_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/scale"
	"github.com/zhiyun-ops/zhiyun/scale/execseam"
)

// TestMain makes the test binary the program under call, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "seam" {
		os.Exit(seam(os.Args[2]))
	}
	os.Exit(m.Run())
}

func seam(verb string) int {
	var in struct {
		Key string `json:"key"`
		ID  string `json:"id"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	switch {
	case verb == "modules":
		fmt.Println(`{"modules":[{"name":"shop.cart","min":3,"capacity":{"s":100},"serving":[{"name":"d1","type":"s","share":100}]}]}`)
	case verb == "idle":
		fmt.Println(`{"devices":[{"name":"d2","city":"sz","site":"sz1","type":"s"}]}`)
	case verb == "launch" && in.Key == "never":
		fmt.Fprintln(os.Stderr, "no such flow")
		return 3
	case verb == "launch" && in.Key == "later":
		fmt.Fprintln(os.Stderr, "busy")
		return 1
	case verb == "launch":
		fmt.Printf(`{"id":"run-%s"}`, in.Key)
	case verb == "state" && in.ID == "run-k":
		fmt.Println(`{"state":"running"}`)
	default:
		fmt.Println(`{"state":"lost"}`)
	}
	return 0
}

func TestProgram(t *testing.T) {
	t.Parallel()
	p, err := execseam.New(os.Args[0], "seam")
	if err != nil {
		t.Fatal(err)
	}
	modules, err := p.Modules(t.Context())
	want := []scale.Module{{Name: "shop.cart", Min: 3, Capacity: map[string]float64{"s": 100}, Serving: []scale.Device{{Name: "d1", Type: "s", Share: 100}}}}
	if diff := cmp.Diff(want, modules); diff != "" || err != nil {
		t.Errorf("modules: %v (-want +got):\n%s", err, diff)
	}
	idle, err := p.Idle(t.Context())
	if diff := cmp.Diff([]scale.Candidate{{Name: "d2", City: "sz", Site: "sz1", Type: "s"}}, idle); diff != "" || err != nil {
		t.Errorf("idle: %v (-want +got):\n%s", err, diff)
	}
	if id, err := p.Launch(t.Context(), scale.Order{Key: "k"}); id != "run-k" || err != nil {
		t.Errorf("launch: %q, %v", id, err)
	}
	if _, err := p.Launch(t.Context(), scale.Order{Key: "never"}); !errors.Is(err, scale.ErrRejected) || !strings.Contains(err.Error(), "no such flow") {
		t.Errorf("launch of what can never be: %v, want ErrRejected", err)
	}
	if _, err := p.Launch(t.Context(), scale.Order{Key: "later"}); err == nil || errors.Is(err, scale.ErrRejected) {
		t.Errorf("launch while busy: %v, want another error", err)
	}
	if state, err := p.State(t.Context(), "run-k"); state != scale.Underway || err != nil {
		t.Errorf("state: %q, %v", state, err)
	}
	if _, err := p.State(t.Context(), "x"); err == nil {
		t.Error("an unknown state was taken")
	}
	if _, err := execseam.New("/no/such/program"); err == nil {
		t.Error("a missing program was taken")
	}
}
