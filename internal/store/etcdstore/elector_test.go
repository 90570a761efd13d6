package etcdstore_test

import (
	"errors"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

// A leader that dies without a word is replaced when its lease has lapsed, and cannot write any more.
func TestDeadLeaderIsReplaced(t *testing.T) {
	t.Parallel()
	ctx := within(t, time.Minute)
	member := start(t, etcdstore.EmbeddedConfig{})
	elector := func(dying bool) (store.Elector, store.Store, func() error) {
		client := member.Client()
		if dying {
			client = v3client.New(etcdstore.Server(member))
		}
		e, err := etcdstore.NewElector(etcdstore.ElectorConfig{Client: client, Prefix: "/leader/", TTL: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		return e, etcdstore.New(member.Client(), "/"), client.Close
	}
	dying, s, die := elector(true)
	other, _, _ := elector(false)
	first, err := dying.Campaign(ctx, "gray", "one")
	if err != nil {
		t.Fatal(err)
	}
	if err := die(); err != nil {
		t.Log(err) // its lease is kept alive no longer
	}
	second, err := other.Campaign(ctx, "gray", "two")
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-first.Done():
	case <-ctx.Done():
		t.Error("the dead leader's term does not end")
	}
	if _, err := store.Fenced(s, first).Commit(ctx, store.Put("a", nil)); !errors.Is(err, store.ErrFenced) {
		t.Errorf("the dead leader's commit: %v, want ErrFenced", err)
	}
	if _, err := store.Fenced(s, second).Commit(ctx, store.Put("a", nil)); err != nil {
		t.Error(err)
	}
	if err := second.Resign(ctx); err != nil {
		t.Error(err)
	}
}
