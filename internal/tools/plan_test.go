package tools_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// everything is each file below the devices' roots, with its content.
func (f *fleet) everything(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, root := range f.roots {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				content, _ := os.ReadFile(path)
				out[path] = string(content)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// The rehearsal of an expansion goes through all of its steps, on the real tools and devices: it names what would be touched, and
// touches nothing. Then the expansion does that. The contraction's does the same on a module that serves.
func TestRehearsals(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "", "d1", "d2")
	rehearse := func(name string) flow.Rehearsal {
		t.Helper()
		kept := func() map[string]string {
			out := f.Raw(t)
			maps.DeleteFunc(out, func(key, _ string) bool { return strings.HasPrefix(key, "/drift/device/") }) // devices report all the time
			return out
		}
		before, files, log := f.InForce(t), f.everything(t), kept()
		run, err := f.engine.RehearseStart(t.Context(), name, map[string]any{"module": "shop.cart", "devices": []any{"d1", "d2"}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, f.InForce(t)); diff != "" {
			t.Errorf("a rehearsal of %s changed:\n%s", name, diff)
		}
		if diff := cmp.Diff(files, f.everything(t)); diff != "" {
			t.Errorf("a rehearsal of %s wrote:\n%s", name, diff)
		}
		if diff := cmp.Diff(log, kept()); diff != "" {
			t.Errorf("a rehearsal of %s was recorded:\n%s", name, diff)
		}
		asked := map[string]bool{}
		for _, call := range run.Calls {
			asked[call.Step] = true
			if call.Error != nil || !call.Known {
				t.Errorf("%s: %s[%d]: known: %v, %v", name, call.Step, call.Item, call.Known, call.Error)
			}
		}
		for _, step := range run.Steps {
			if step.Fate == flow.Runs && !asked[step.Name] && (step.Items == nil || *step.Items > 0) {
				t.Errorf("%s: %s was not asked; it needs %v", name, step.Name, step.Needs)
			}
		}
		return run
	}
	says := func(run flow.Rehearsal, want ...flow.Touch) {
		t.Helper()
		for _, touch := range want {
			if !slices.Contains(run.Touches, touch) {
				t.Errorf("it does not say %+v but:\n%s", touch, strings.ReplaceAll(fmt.Sprint(run.Touches), "} {", "}\n{"))
			}
		}
	}
	says(rehearse("expand"),
		flow.Touch{Kind: "device", Name: "d1", Change: "idle -> held"}, flow.Touch{Kind: "device", Name: "d2", Change: "idle -> held"},
		flow.Touch{Kind: "device", Name: "d2", Change: "held -> in_service of shop.cart"},
		flow.Touch{Kind: "mute", Name: "shop.cart", Change: "its load events are muted, for 4h0m0s at most"},
		flow.Touch{Kind: "file", Name: "etc/cart.conf", Change: "is new, 1 lines"},
	)
	if x := f.run(t, "expand", map[string]any{"module": "shop.cart", "devices": []any{"d1", "d2"}}); x.State != flow.Done {
		t.Fatalf("expansion is %s: %v", x.State, x.Error)
	}
	says(rehearse("contract"),
		flow.Touch{Kind: "device", Name: "d1", Change: "in_service -> held"}, flow.Touch{Kind: "device", Name: "d1", Change: "held -> idle"},
		flow.Touch{Kind: "package", Name: "cart", Change: "is removed"}, flow.Touch{Kind: "file", Name: "etc/cart.conf", Change: "is removed"},
		flow.Touch{Kind: "process", Name: "cart", Change: "is stopped"},
	)
}
