package etcdstore_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/drift/etcdstore"
	etcd "github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

// one is a fleet of one module with a single device.
type one struct{}

func (one) Module(context.Context, string) (string, int, error) { return "shop.cart", 1, nil }

// A report with more findings than etcd takes in one transaction is stored whole, and found by another ledger.
func TestLedgerOnEtcd(t *testing.T) {
	t.Parallel()
	m, err := etcd.Embedded(etcd.EmbeddedConfig{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("close etcd: %v", err)
		}
	})
	open := func() *drift.Ledger {
		l, err := drift.NewLedger(drift.LedgerConfig{Store: etcdstore.New(m.Client(), "/zhiyun/drift/"), Fleet: one{}})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	r := drift.Report{Device: "d1", Generation: "1", At: time.Now(), Coverage: []drift.Coverage{{Collector: "files", Kinds: drift.Kinds()}}}
	for i := range 200 {
		r.Findings = append(r.Findings, drift.Finding{Kind: drift.KindFile, Subject: fmt.Sprintf("f/%03d", i), Fields: []string{drift.FieldContent}, Status: drift.StatusOpen})
	}
	if err := open().Report(ctx, r); err != nil {
		t.Fatal(err)
	}
	count := func(want int) {
		t.Helper()
		entries, _, err := open().List(ctx, drift.Filter{Module: "shop.cart"})
		if err != nil || len(entries) != want {
			t.Errorf("%d open entries (%v), want %d", len(entries), err, want)
		}
	}
	count(200)
	r.At, r.Findings = r.At.Add(time.Second), nil
	if err := open().Report(ctx, r); err != nil {
		t.Fatal(err)
	}
	count(0)
}
