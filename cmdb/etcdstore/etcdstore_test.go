package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/cmdb/etcdstore"
	etcd "github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

func member(t *testing.T, dir string) *etcd.Member {
	t.Helper()
	m, err := etcd.Embedded(etcd.EmbeddedConfig{Dir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() }) // a second Close says nothing new
	return m
}

// open runs a DB on a member's store until the returned function is called.
func open(t *testing.T, m *etcd.Member) (*cmdb.DB, func()) {
	t.Helper()
	db, err := cmdb.New(cmdb.Config{Store: etcdstore.New(m.Client(), "/zhiyun/cmdb/")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := db.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	stop := sync.OnceFunc(func() { cancel(); wait.Wait() })
	t.Cleanup(stop)
	if err := db.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db, stop
}

// An apply larger than etcd's transaction limit is all or nothing, two replicas never give one device twice, and a
// restart of etcd and DB shows the same state with its whole history.
func TestOnEmbeddedEtcd(t *testing.T) {
	t.Parallel()
	const devices = 400
	dir := t.TempDir()
	m := member(t, dir)
	a, stopA := open(t, m)
	b, stopB := open(t, m)
	var text strings.Builder
	text.WriteString("kind: site\nname: s\ncity: c\n---\nkind: device_type\nname: t\ncores: 1\n---\nkind: module\nname: m\n")
	for i := range devices {
		fmt.Fprintf(&text, "---\nkind: device\nname: d%03d\naddr: 10.0.%d.%d\nsite: s\ntype: t\n", i, i/250, i%250)
	}
	plan, err := a.Plan(t.Context(), cmdb.Documents([]byte(text.String())))
	if err != nil {
		t.Fatal(err)
	}
	after := b.Revision()
	revision, err := a.Apply(t.Context(), plan, cmdb.By("ann"))
	if err != nil {
		t.Fatal(err)
	}
	for event, err := range b.Watch(t.Context(), after) {
		if err != nil {
			t.Fatal(err)
		}
		if len(event.Objects) != devices+3 || event.Revision != revision {
			t.Errorf("another replica sees the apply at once: %d objects at %d, applied at %d", len(event.Objects), event.Revision, revision)
		}
		break
	}
	var (
		wait sync.WaitGroup
		mu   sync.Mutex
		held = map[string]string{}
	)
	for w := range 4 {
		db, owner := []*cmdb.DB{a, b}[w%2], fmt.Sprintf("owner-%d", w)
		wait.Go(func() {
			for i := range 5 {
				got, err := db.Acquire(t.Context(), cmdb.AcquireRequest{Owner: owner, Key: fmt.Sprint(i), Module: "m", Count: 3})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, d := range got {
					if other := held[d.Name]; other != "" {
						t.Errorf("I10: %s is held by %s and %s", d.Name, other, owner)
					}
					held[d.Name] = owner
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if err := a.Serve(t.Context(), held["d000"], "d000", "m", cmdb.By("flow")); err != nil {
		t.Error(err)
	}
	stopA()
	stopB()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	again, _ := open(t, member(t, dir))
	if got := again.Counts(); got[cmdb.Held] != 59 || got[cmdb.InService] != 1 || got[cmdb.Idle] != devices-60 {
		t.Errorf("I10, I9: after a restart %v", got)
	}
	history, err := again.History(t.Context(), cmdb.KindDevice, "d000")
	if err != nil || len(history) != 3 || history[0].Actor != "ann" || history[2].Action != "serve" {
		t.Errorf("history: %+v, %v", history, err)
	}
	if _, err := again.Delete(t.Context(), cmdb.KindModule, "m"); !errors.Is(err, cmdb.ErrInvalid) {
		t.Errorf("a module with devices is deleted: %v", err)
	}
}
