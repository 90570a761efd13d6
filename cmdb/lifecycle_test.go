package cmdb_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/zhiyun-ops/zhiyun/cmdb"
)

var update = flag.Bool("update", false, "record the outcome of scripts anew")

// TestLifeCycleScript runs every verb on a device in every state, by its holder, by a stranger and after the
// hold's end, and compares with the recorded outcome.
func TestLifeCycleScript(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	verbs := []string{"acquire", "release", "expire", "renew", "serve", "hold", "forfeit", "mark_faulty", "repair", "retire"}
	if len(verbs) != len(cmdb.Verbs()) {
		t.Fatalf("the script has %d verbs, the life cycle %d", len(verbs), len(cmdb.Verbs()))
	}
	starts := []struct {
		name string
		d    cmdb.Device
	}{
		{"idle", cmdb.Device{State: cmdb.Idle}},
		{"held for expansion", cmdb.Device{State: cmdb.Held, Holder: "e1", Module: "m", HeldFrom: cmdb.Idle, HeldUntil: now.Add(time.Hour), Acquisition: "e1/key"}},
		{"held for contraction", cmdb.Device{State: cmdb.Held, Holder: "e1", Module: "m", HeldFrom: cmdb.InService, HeldUntil: now.Add(time.Hour)}},
		{"held for expansion, expired", cmdb.Device{State: cmdb.Held, Holder: "e1", Module: "m", HeldFrom: cmdb.Idle, HeldUntil: now, Acquisition: "e1/key"}},
		{"held for contraction, expired", cmdb.Device{State: cmdb.Held, Holder: "e1", Module: "m", HeldFrom: cmdb.InService, HeldUntil: now, Acquisition: "e1/key"}},
		{"in service", cmdb.Device{State: cmdb.InService, Module: "m", Acquisition: "e1/key"}},
		{"faulty", cmdb.Device{State: cmdb.Faulty, Fault: "disk"}},
		{"retired", cmdb.Device{State: cmdb.Retired}},
	}
	var out strings.Builder
	for _, start := range starts {
		fmt.Fprintf(&out, "%s\n", start.name)
		for _, verb := range verbs {
			for _, owner := range []string{"e1", "e2"} {
				d := start.d
				d.Name, d.Since = "d1", now.Add(-time.Hour)
				next, err := cmdb.Step(now, d, verb, owner, "", now.Add(2*time.Hour))
				fmt.Fprintf(&out, "  %-11s by %s  %s\n", verb, owner, outcome(now, next, err))
				if next != nil && !slices.Contains(cmdb.States(), next.State) {
					t.Errorf("%s %s: state %q is none of the five", start.name, verb, next.State)
				}
			}
		}
	}
	const file = "testdata/lifecycle.txt"
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("the outcome is not as recorded; look, and record it by -update:\n%s", diff)
	}
}

func outcome(now time.Time, d *cmdb.Device, err error) string {
	if err != nil {
		return "refused: " + strings.TrimPrefix(err.Error(), "cmdb: ")
	}
	s := string(d.State)
	if d.Module != "" {
		s += " for " + d.Module
	}
	if d.Holder != "" {
		s += fmt.Sprintf(", held by %s until +%s, then %s", d.Holder, d.HeldUntil.Sub(now), d.HeldFrom)
	}
	if d.Acquisition != "" {
		s += ", acquisition " + d.Acquisition
	}
	if d.Fault != "" {
		s += ", fault " + d.Fault
	}
	if !d.Since.Equal(now) {
		s += ", since before"
	}
	return s
}
