package agent_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// onlyShop grants everything to the modules of a shop.
type onlyShop struct{}

func (onlyShop) MayCall(caller, _ string) bool { return caller == "shop.web" }
func (onlyShop) Changed() <-chan struct{}      { return nil }

// A door asks the agent what it knows, waits for a change, and asks again.
func TestLookup(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, func(c *server.Config) { c.Grants = onlyShop{} })
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:1", Share: 50}, {Service: "a", Addr: "[::1]:2", Share: 0}}); err != nil {
		t.Fatal(err)
	}
	a, _ := l5test.Agent(t, s.Target(), nil)
	view, changed, err := a.Lookup(within(t), "shop.web", "a")
	if err != nil {
		t.Fatal(err)
	}
	if len(view.Members) != 2 || view.Members[0].Weight != 50 || view.Members[1].Weight != 0 || view.Revision == 0 {
		t.Errorf("looked up: %+v", view)
	}
	if err := s.Name().SetShare(within(t), "a", map[string]int{"[::1]:2": 100}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	case <-within(t).Done():
		t.Fatal("no change is told")
	}
	l5test.Await(t, "the new share is seen", func() bool {
		view, _, err := a.Lookup(within(t), "shop.web", "a")
		return err == nil && view.Members[1].Weight == 100
	})
	if got := a.Services(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("services: %v", got)
	}
	if _, changed, err := a.Lookup(within(t), "stranger", "a"); !errors.Is(err, l5.ErrDenied) || changed == nil {
		t.Errorf("without a grant: %v", err)
	}
	if _, _, err := a.Lookup(within(t), "shop.web", "no such id!"); err == nil {
		t.Error("a bad service id was looked up")
	}
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := a.Lookup(ctx, "shop.web", "b"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a service that nobody knows: %v", err)
	}
}

// What nobody calls for Config.Linger is forgotten, and who waited for a change is told.
func TestForgotten(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	a, _ := l5test.Agent(t, s.Target(), func(c *agent.Config) { c.Linger = 20 * time.Millisecond })
	_, changed, err := a.Lookup(within(t), "shop.web", "a")
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	case <-within(t).Done():
		t.Fatal("it was not forgotten")
	}
	l5test.Await(t, "the service is dropped", func() bool { return len(a.Services()) == 0 })
}
