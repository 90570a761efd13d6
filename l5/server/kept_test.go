package server_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

func six(t *testing.T, s *l5test.Server) (keys []store.Op) {
	t.Helper()
	var all []l5.Instance
	for i := range 6 {
		all = append(all, l5.Instance{Service: "a", Addr: fmt.Sprintf("127.0.0.1:%d", i+1), Share: 100})
		keys = append(keys, store.Delete(server.Key("a", all[i].Addr)))
	}
	if err := s.Name().Register(within(t), all); err != nil {
		t.Fatal(err)
	}
	return keys
}

// What vanishes from the store without anybody's removing it is served on, and named; what somebody asks for is not
// held back, whether or not it had vanished.
func TestVanishedInstancesAreKept(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	keys := six(t, s)
	client := l5test.Client(t, s.Target(), nil)
	if _, err := client.Route(within(t), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Store.Commit(within(t), keys[1:]...); err != nil { // an operator's hand
		t.Fatal(err)
	}
	kept := func() (n int) {
		for _, i := range s.Name().Instances("a") {
			if strings.Contains(i.Reason, "vanished from the store") {
				n++
			}
		}
		return n
	}
	l5test.Await(t, "five are kept", func() bool { return kept() == 5 })
	if got := len(client.Explain("a").Instances); got != 6 {
		t.Errorf("the client has %d of 6", got)
	}
	if err := s.Name().Deregister(within(t), "a", "127.0.0.1:2"); err != nil {
		t.Fatal(err)
	}
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:3"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Name().Drain(within(t), "a", "127.0.0.1:4"); err != nil {
		t.Fatal(err)
	}
	if got := addrs(s.Name().Instances("a")); len(got) != 5 || kept() != 2 {
		t.Errorf("left are %v, %d of them kept; want 5 and 2", got, kept())
	}
	l5test.Await(t, "the client follows", func() bool { return len(client.Explain("a").Instances) == 5 })
	for i := range 6 {
		if err := s.Name().Deregister(within(t), "a", fmt.Sprintf("127.0.0.1:%d", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Name().Instances("a"); len(got) != 0 {
		t.Errorf("left after deregistration: %v", addrs(got))
	}
}

// One that vanishes is within the bounds, and so is everything that is asked for.
func TestFewAndAskedForRemovalsAreNotKept(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	keys := six(t, s)
	if _, err := s.Store.Commit(within(t), keys[0]); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "one is gone", func() bool { return len(s.Name().Instances("a")) == 5 })
	if _, err := s.Store.Commit(within(t), append(keys[1:], server.Removed("a", "all of them"))...); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "all are gone", func() bool { return len(s.Name().Instances("a")) == 0 })
}

// A server that restarts over an empty registry pushes nobody's instances away (nacos#4470: an empty list after a restart
// took every caller down): whoever knows more than it keeps that.
func TestEmptyReloadEmptiesNobody_Nacos4470(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]string{"its records": "instance/", "everything": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := l5test.NewServer(t, nil)
			six(t, s)
			client := l5test.Client(t, s.Target(), nil)
			if _, err := client.Route(within(t), "a"); err != nil {
				t.Fatal(err)
			}
			s.Stop()
			records, _, err := s.Store.List(within(t), lost)
			if err != nil {
				t.Fatal(err)
			}
			var ops []store.Op
			for _, record := range records {
				ops = append(ops, store.Delete(record.Key))
			}
			if _, err := s.Store.Commit(within(t), ops...); err != nil {
				t.Fatal(err)
			}
			s.Start()
			l5test.Await(t, "the client is back", func() bool { return s.Name().Explain("a").Subscribers == 1 })
			if err := s.Name().Register(within(t), []l5.Instance{{Service: "b", Addr: "127.0.0.1:9", Share: 100}}); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Route(within(t), "b"); err != nil { // what was pushed before it has arrived
				t.Fatal(err)
			}
			if _, err := client.Route(within(t), "a"); err != nil {
				t.Errorf("after the reload: %v", err)
			}
			if got := len(client.Explain("a").Instances); got != 6 {
				t.Errorf("the client has %d of 6", got)
			}
		})
	}
}
