package cmdb_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/zhiyun-ops/zhiyun/cmdb"
	"pgregory.net/rapid"
)

var (
	someName = rapid.StringMatching(`[a-z0-9]([a-z0-9._-]{0,8}[a-z0-9])?`)
	someText = rapid.String()
)

func labels(t *rapid.T) map[string]string {
	m := rapid.MapOfN(rapid.StringMatching(`[a-zA-Z0-9./-]{1,8}`), rapid.StringN(0, 20, 80), 0, 3).Draw(t, "labels")
	if len(m) == 0 {
		return nil
	}
	return m
}

// world is a set of objects whose relations hold, different for each draw.
func world(t *rapid.T) []cmdb.Object {
	var objects []cmdb.Object
	sites := rapid.SliceOfNDistinct(someName, 1, 3, rapid.ID[string]).Draw(t, "sites")
	for _, name := range sites {
		objects = append(objects, &cmdb.Site{Name: name, City: rapid.StringMatching(`[a-z]{1,6}`).Draw(t, "city"), Title: someText.Draw(t, "title"), Labels: labels(t)})
	}
	types := rapid.SliceOfNDistinct(someName, 1, 3, rapid.ID[string]).Draw(t, "types")
	for _, name := range types {
		objects = append(objects, &cmdb.DeviceType{Name: name, Cores: rapid.IntRange(1, 128).Draw(t, "cores")})
	}
	ids := rapid.SliceOfNDistinct(someName, 0, 4, rapid.ID[string]).Draw(t, "modules")
	for i, name := range ids {
		m := &cmdb.Module{Name: name, Title: someText.Draw(t, "title"), Params: labels(t),
			Packages:  []cmdb.PackageSpec{{Name: "p", Version: rapid.StringMatching(`[0-9]\.[0-9]{1,2}`).Draw(t, "version")}},
			Services:  []cmdb.ServiceSpec{{ID: "svc." + name, Port: rapid.IntRange(1, 65535).Draw(t, "port"), Weight: 100}},
			Processes: []cmdb.ProcessSpec{{Name: "x", Package: "p", Command: []string{"bin/x", someText.Draw(t, "arg")}, Count: 1}},
		}
		m.Scale = cmdb.ScaleSpec{Min: i, Capacity: map[string]float64{types[0]: rapid.Float64Range(0.5, 1e6).Draw(t, "capacity")}, Sites: sites}
		if rapid.Bool().Draw(t, "calls") {
			m.Permissions = []string{"svc." + ids[rapid.IntRange(0, len(ids)-1).Draw(t, "callee")]}
		}
		objects = append(objects, m)
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "devices") {
		objects = append(objects, &cmdb.Device{Name: fmt.Sprintf("d%d", i), Addr: fmt.Sprintf("10.0.0.%d", i), State: cmdb.Idle, Labels: labels(t),
			Site: rapid.SampledFrom(sites).Draw(t, "site"), Type: rapid.SampledFrom(types).Draw(t, "type")})
	}
	return objects
}

func yamlOf(t *rapid.T, objects []cmdb.Object) []byte {
	text, err := cmdb.YAML(objects...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What is written as YAML is read as it was.
func TestYAMLRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := world(t)
		text := yamlOf(t, want)
		got, err := cmdb.Parse(cmdb.Document{Name: "w", Data: text})
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s\n%s", diff, text)
		}
	})
}

// From any world to any other: the plan says what the apply does, the apply makes it so, and the next plan is empty.
func TestPlanAndApplyConverge(t *testing.T) {
	t.Parallel()
	worlds := rapid.Custom(world)
	for seed := range 12 {
		db := run(t)
		for i := range 3 {
			want := worlds.Example(seed*3 + i)
			text, err := cmdb.YAML(want...)
			if err != nil {
				t.Fatal(err)
			}
			source := cmdb.Documents(text)
			prune := cmdb.Prune(cmdb.KindSite, cmdb.KindDeviceType, cmdb.KindModule)
			// Idle devices cannot be pruned; those that the new world does not have are retired.
			keep := map[string]bool{}
			for _, o := range want {
				keep[o.Ref().String()] = true
			}
			for _, d := range db.Devices(cmdb.DeviceFilter{}) {
				if !keep["device/"+d.Name] {
					if err := db.Retire(t.Context(), d.Name); err != nil {
						t.Fatal(err)
					}
					if _, err := db.Delete(t.Context(), cmdb.KindDevice, d.Name); err != nil {
						t.Fatal(err)
					}
				}
			}
			plan, err := db.Plan(t.Context(), source, prune)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Apply(t.Context(), plan); err != nil {
				t.Fatal(err)
			}
			for _, o := range want {
				got, err := db.Get(o.Ref().Kind, o.Ref().Name)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(o, got, cmpopts.EquateEmpty(), cmpopts.IgnoreTypes(cmdb.Meta{})); diff != "" {
					t.Error(diff)
				}
			}
			if n := len(db.Modules()) + len(db.Sites()) + len(db.DeviceTypes()) + len(db.Devices(cmdb.DeviceFilter{})); n != len(want) {
				t.Errorf("%d objects, want %d", n, len(want))
			}
			again, err := db.Plan(t.Context(), source, prune)
			if err != nil || !again.Empty() || again.Unchanged != len(want) {
				t.Errorf("seed %d: the plan after the apply: %v, %v", seed, again, err)
			}
		}
		db.stop()
	}
}
