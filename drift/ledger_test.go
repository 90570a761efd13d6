package drift_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/drift/memstore"
)

// fleet is one module of so many devices.
type fleet int

func (f fleet) Module(context.Context, string) (string, int, error) { return "shop.cart", int(f), nil }

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ledger(t *testing.T, config drift.LedgerConfig) *drift.Ledger {
	t.Helper()
	if config.Store == nil {
		config.Store = memstore.New()
	}
	if config.Now == nil {
		config.Now = func() time.Time { return noon }
	}
	l, err := drift.NewLedger(config)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func differing(subject string) drift.Finding {
	return drift.Finding{Kind: drift.KindConfig, Subject: subject, Fields: []string{drift.FieldContent},
		Expected: "sha256:aa", Actual: "sha256:bb", Status: drift.StatusOpen, Verdict: drift.Unauthorised, FirstSeen: noon}
}

func report(device string, at time.Duration, findings ...drift.Finding) drift.Report {
	return drift.Report{Device: device, Generation: "1", At: noon.Add(at), Findings: findings,
		Coverage: []drift.Coverage{{Collector: "files", Kinds: []drift.Kind{drift.KindFile, drift.KindConfig, drift.KindPackage}, Via: "rescan"}}}
}

func statuses(t *testing.T, l *drift.Ledger, f drift.Filter) map[string]drift.Status {
	t.Helper()
	entries, _, err := l.List(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]drift.Status)
	for _, e := range entries {
		out[e.ID] = e.Finding.Status
	}
	return out
}

func submit(t *testing.T, l *drift.Ledger, r drift.Report) {
	t.Helper()
	if err := l.Report(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

var everyStatus = []drift.Status{drift.StatusOpen, drift.StatusHeld, drift.StatusRepairing, drift.StatusRepaired, drift.StatusGone,
	drift.StatusEscalated, drift.StatusIgnored}

func TestLedgerFollowsReports(t *testing.T) {
	t.Parallel()
	l := ledger(t, drift.LedgerConfig{})
	submit(t, l, report("d1", 0, differing("etc/a"), differing("etc/b"), differing("etc/c")))

	repaired := differing("etc/a")
	repaired.Status, repaired.Verdict = drift.StatusRepaired, drift.Corrective
	next := report("d1", time.Second, differing("etc/c"))
	next.Closed = []drift.Finding{repaired}
	for range 2 { // a report that is sent again changes nothing
		submit(t, l, next)
	}
	want := map[string]drift.Status{"d1/config/etc/a": drift.StatusRepaired, "d1/config/etc/b": drift.StatusGone, "d1/config/etc/c": drift.StatusOpen}
	if diff := cmp.Diff(want, statuses(t, l, drift.Filter{Status: everyStatus})); diff != "" {
		t.Errorf("after two reports (-want +got):\n%s", diff)
	}

	blind := report("d1", 2*time.Second)
	blind.Coverage[0].Blind = true
	submit(t, l, blind)
	late := report("d1", 0, differing("etc/z"))
	submit(t, l, late)
	if diff := cmp.Diff(map[string]drift.Status{"d1/config/etc/c": drift.StatusOpen}, statuses(t, l, drift.Filter{})); diff != "" {
		t.Errorf("a report that sees nothing closes nothing, and one that was overtaken opens nothing (-want +got):\n%s", diff)
	}
}

func TestLedgerTellsAgentsOfOrdersAndIgnored(t *testing.T) {
	t.Parallel()
	l := ledger(t, drift.LedgerConfig{})
	submit(t, l, report("d1", 0, differing("etc/a"), differing("etc/b")))
	if err := l.Repair(t.Context(), "d1/config/etc/a", "ann", "it is mine"); err != nil {
		t.Fatal(err)
	}
	if err := l.Ignore(t.Context(), "d1/config/etc/b", "bob", "until friday", noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	d, err := l.Directives(t.Context(), "d1")
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Orders) != 1 || d.Orders[0].Subject != "etc/a" || d.Orders[0].By != "ann" {
		t.Errorf("orders: %+v", d.Orders)
	}
	want := []drift.Hold{{Kind: drift.KindConfig, Subject: "etc/b", Verdict: drift.Override, Reason: "until friday", By: "bob", Until: noon.Add(time.Hour)}}
	if diff := cmp.Diff(want, d.Holds); diff != "" {
		t.Errorf("holds (-want +got):\n%s", diff)
	}
	if err := l.Repair(t.Context(), "d1/config/none", "ann", ""); !errors.Is(err, drift.ErrNotFound) {
		t.Errorf("order for what is not there: %v", err)
	}
}

// Reopen lifts an ignore, and where repair has given up it has the agent begin anew; the order goes once it was served.
func TestLedgerReopens(t *testing.T) {
	t.Parallel()
	l := ledger(t, drift.LedgerConfig{})
	given := differing("etc/a")
	given.Status, given.Repairs = drift.StatusEscalated, 3
	submit(t, l, report("d1", 0, given, differing("etc/b")))
	if err := l.Ignore(t.Context(), "d1/config/etc/b", "bob", "known", time.Time{}); err != nil {
		t.Fatal(err)
	}
	orders := func() []drift.Order {
		t.Helper()
		d, err := l.Directives(t.Context(), "d1")
		if err != nil {
			t.Fatal(err)
		}
		return d.Orders
	}
	for _, id := range []string{"d1/config/etc/a", "d1/config/etc/b", "d1/config/etc/a"} {
		if err := l.Reopen(t.Context(), id, "ann", "mended"); err != nil {
			t.Fatal(err)
		}
	}
	if got := orders(); len(got) != 1 || !got[0].Anew || got[0].Subject != "etc/a" || got[0].By != "ann" {
		t.Errorf("orders: %+v", got)
	}
	want := map[string]drift.Status{"d1/config/etc/a": drift.StatusEscalated, "d1/config/etc/b": drift.StatusOpen}
	if diff := cmp.Diff(want, statuses(t, l, drift.Filter{})); diff != "" {
		t.Errorf("after both were reopened (-want +got):\n%s", diff)
	}
	given.Status = drift.StatusOpen // the agent has begun anew
	submit(t, l, report("d1", time.Second, given, differing("etc/b")))
	if got := orders(); len(got) != 0 {
		t.Errorf("orders after they were served: %+v", got)
	}
	submit(t, l, report("d1", 2*time.Second)) // all is as declared
	if err := l.Reopen(t.Context(), "d1/config/etc/a", "ann", ""); !errors.Is(err, drift.ErrClosed) {
		t.Errorf("reopened what is closed: %v", err)
	}
}

func TestBrakeHoldsAModuleWhoseDevicesDifferAlike(t *testing.T) {
	t.Parallel()
	l := ledger(t, drift.LedgerConfig{Fleet: fleet(10)})
	holds := func() []drift.Hold {
		d, err := l.Directives(t.Context(), "d9")
		if err != nil {
			t.Fatal(err)
		}
		return d.Holds
	}
	for i := range 3 {
		submit(t, l, report(fmt.Sprintf("d%d", i), 0, differing("etc/a"), differing(fmt.Sprintf("etc/own%d", i))))
	}
	if got := holds(); len(got) != 0 {
		t.Fatalf("3 of 10 are not more than 30%%, but: %+v", got)
	}
	submit(t, l, report("d3", 0, differing("etc/a")))
	if got := holds(); len(got) != 1 || got[0].Subject != "etc/a" || got[0].Verdict != drift.Suspect {
		t.Fatalf("4 of 10 differ alike, holds: %+v", got)
	}
	for i := range 2 {
		submit(t, l, report(fmt.Sprintf("d%d", i), time.Second))
	}
	if got := holds(); len(got) != 1 {
		t.Fatalf("2 of 10 are still more than half of 30%%, holds: %+v", got)
	}
	submit(t, l, report("d2", time.Second))
	if got := holds(); len(got) != 0 {
		t.Errorf("1 of 10 is left, but holds: %+v", got)
	}
}

func TestLedgerPages(t *testing.T) {
	t.Parallel()
	l := ledger(t, drift.LedgerConfig{})
	var all []string
	var findings []drift.Finding
	for i := range 250 { // more than one commit takes
		findings = append(findings, differing(fmt.Sprintf("etc/%03d", i)))
		all = append(all, fmt.Sprintf("d1/config/etc/%03d", i))
	}
	submit(t, l, report("d1", 0, findings...))
	var got []string
	for after := ""; ; {
		entries, next, err := l.List(t.Context(), drift.Filter{Limit: 100, After: after})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			got = append(got, e.ID)
		}
		if after = next; after == "" {
			break
		}
	}
	if !slices.Equal(all, got) {
		t.Errorf("pages hold %d entries, want %d in order", len(got), len(all))
	}
}
