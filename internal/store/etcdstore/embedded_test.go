package etcdstore_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

// start runs a member in a folder of its own until the test ends.
func start(t testing.TB, config etcdstore.EmbeddedConfig) *etcdstore.Member {
	t.Helper()
	if config.Dir == "" {
		config.Dir = t.TempDir()
	}
	config.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	member, err := etcdstore.Embedded(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := member.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := member.Close(); err != nil {
			t.Error(err)
		}
	})
	return member
}

func TestEmbeddedKeepsWhatItAcknowledged(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dir := t.TempDir()
	member := start(t, etcdstore.EmbeddedConfig{Dir: dir})
	s := etcdstore.New(member.Client(), "/zhiyun/")
	revision, err := s.Commit(ctx, store.Put("a", []byte("1")), store.Put("b", []byte("2")).IfAbsent())
	if err != nil {
		t.Fatal(err)
	}
	if err := member.Close(); err != nil {
		t.Fatal(err)
	}
	again := start(t, etcdstore.EmbeddedConfig{Dir: dir})
	s = etcdstore.New(again.Client(), "/zhiyun/")
	records, at, err := s.List(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != 2 || records[0].Revision != revision || at < revision {
		t.Fatalf("after a restart: %v at %d, want a and b written at %d", records, at, revision)
	}
}
