package center_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/center"
)

// record is a sink that keeps what it takes, and fails when told to.
type record struct {
	mu   sync.Mutex
	took []string // guarded by mu
	fail error
}

func (*record) Name() string { return "record" }
func (r *record) Deliver(_ context.Context, n center.Notice) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.took = append(r.took, n.ID)
	return r.fail
}

func TestMutedIsNotDelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		sink := &record{}
		n := newCenters(t, func(c *center.Config) { c.Sinks = []center.Sink{sink} }).Notify
		deliver := func(id, kind, module, device string, want center.Outcome) {
			t.Helper()
			notice := center.Notice{ID: id, Kind: kind, Module: module, Device: device, Text: "load is high"}
			if got := must[center.Delivery](t)(n.Deliver(ctx, notice)); got.Outcome != want {
				t.Errorf("%s: %s, want %s", id, got.Outcome, want)
			}
		}
		mute := center.Mute{Key: "e1", Kind: "load", Module: "m", Until: time.Now().Add(time.Minute), Actor: "flow"}
		first := must[center.Mute](t)(n.Mute(ctx, mute))
		time.Sleep(time.Second)
		if diff := cmp.Diff(first, must[center.Mute](t)(n.Mute(ctx, mute))); diff != "" {
			t.Errorf("the same key changed: %s", diff)
		}
		must[center.Silence](t)(n.Silence(ctx, center.Silence{Key: "e1", Devices: []string{"d1"}, Until: time.Now().Add(time.Minute), Actor: "flow"}))
		deliver("1", "load", "m", "", center.Muted)
		deliver("2", "load", "other", "", center.Delivered)
		deliver("2", "load", "other", "", center.Delivered)
		deliver("3", "alert", "m", "d1", center.Silenced)
		deliver("4", "alert", "m", "d2", center.Delivered)
		if err := errors.Join(n.Unmute(ctx, "e1", "flow"), n.Unmute(ctx, "e1", "flow"), n.Unmute(ctx, "never", "flow")); err != nil {
			t.Fatal(err)
		}
		deliver("5", "load", "m", "", center.Delivered)
		deliver("1", "load", "m", "", center.Muted) // it was answered for good
		must[center.Mute](t)(n.Mute(ctx, mute))
		deliver("6", "load", "m", "", center.Muted)
		time.Sleep(time.Minute) // both end by themselves
		deliver("7", "load", "m", "", center.Delivered)
		deliver("8", "alert", "m", "d1", center.Delivered)
		sink.fail = errors.New("sink is down")
		deliver("9", "alert", "m", "d1", center.Failed)
		if diff := cmp.Diff([]string{"2", "4", "5", "7", "8", "9"}, sink.took); diff != "" {
			t.Error(diff)
		}
		muted, _, err := n.Deliveries(ctx, center.Muted, center.Page{})
		if err != nil || len(muted) != 2 || muted[0].By != "e1" {
			t.Errorf("muted notices are recorded as %+v, %v", muted, err)
		}
	})
}

func TestAlertmanagerSilence(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	silences := map[string]map[string]any{} // guarded by mu
	lose := true                            // guarded by mu: the first answer to a POST is lost
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.Method == "GET" && r.URL.Path == "/api/v2/silences":
			list := []map[string]any{}
			for _, s := range silences {
				list = append(list, s)
			}
			_ = json.NewEncoder(w).Encode(list)
		case r.Method == "POST" && r.URL.Path == "/api/v2/silences":
			var s map[string]any
			_ = json.NewDecoder(r.Body).Decode(&s)
			id := fmt.Sprintf("id-%d", len(silences)+1)
			s["id"], s["status"] = id, map[string]any{"state": "active"}
			silences[id] = s
			if lose {
				lose = false
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]string{"silenceID": id})
		case r.Method == "DELETE":
			s := silences[strings.TrimPrefix(r.URL.Path, "/api/v2/silence/")]
			if s == nil {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			s["status"] = map[string]any{"state": "expired"}
		}
	}))
	t.Cleanup(server.Close)
	manager, err := center.NewAlertmanager(server.URL, server.Client())
	if err != nil {
		t.Fatal(err)
	}
	n := newCenters(t, func(c *center.Config) { c.Silencer = manager }).Notify
	silence := center.Silence{Key: "e1/9", Devices: []string{"d1", "d2"}, Until: time.Now().Add(time.Hour), Actor: "flow", Reason: "expansion"}
	if _, err := n.Silence(t.Context(), silence); err == nil {
		t.Fatal("a lost answer was taken for a success")
	}
	got := must[center.Silence](t)(n.Silence(t.Context(), silence))
	if got.Remote != "id-1" || len(silences) != 1 {
		t.Fatalf("silence %+v, alertmanager has %v; want one", got, silences)
	}
	if err := errors.Join(n.Unsilence(t.Context(), "e1/9", "flow"), n.Unsilence(t.Context(), "e1/9", "flow")); err != nil {
		t.Fatal(err)
	}
	if state := silences["id-1"]["status"].(map[string]any)["state"]; state != "expired" {
		t.Errorf("the silence is %v, want expired", state)
	}
}
