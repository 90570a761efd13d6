package control_test

import (
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/control/controltest"
	"github.com/zhiyun-ops/zhiyun/l5"
)

// The list of services goes on behind the last of a page, also if that is gone by then.
func TestServicesInPages(t *testing.T) {
	t.Parallel()
	w := controltest.New(t)
	var all []l5.Instance
	for _, service := range []string{"a", "b", "d", "e"} {
		all = append(all, l5.Instance{Service: service, Addr: "127.0.1.1:7000", Device: "d1", State: l5.StateUp})
	}
	if err := w.Names.Register(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	client, err := control.Dial(w.Target, "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for after, want := range map[string]string{"": "a b, b", "b": "d e, ", "c": "d e, ", "e": ", ", "z": ", "} {
		answer, err := client.Registry.Services(t.Context(), connect.NewRequest(&pb.ServicesRequest{Page: &pb.Page{Limit: 2, After: after}}))
		if err != nil {
			t.Fatalf("after %q: %v", after, err)
		}
		if got := strings.Join(answer.Msg.Services, " ") + ", " + answer.Msg.Next; got != want {
			t.Errorf("after %q: %q, want %q", after, got, want)
		}
	}
}
