package cmdb_test

import (
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/zhiyun-ops/zhiyun/cmdb"
)

// FuzzParse: no input makes Parse panic or hang; what it takes, it takes again from its own YAML.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"places", "shop", "devices"} {
		data, err := os.ReadFile("testdata/site/" + name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, text := range []string{
		"", "kind: module\nname: m\npermissions: &p [*p, *p, *p]",
		"a: &a [x]\nkind: site\nname: *a", "kind: module\nname: m\npermissions: &p [a, *p]", "kind: site\nname: x\nlabels: {? [a] : b}",
		"--- !!binary x\n...\n", "{kind: device, name: d, held_until: 2026-01-02T03:04:05Z, state: held}", "kind: business\nname: b\nowner: o\ndr: {sites: [a]}\nmetrics:",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, err := cmdb.Parse(cmdb.Document{Name: "fuzz", Data: data})
		if err != nil {
			if !errors.Is(err, cmdb.ErrInvalid) {
				t.Fatalf("an error that is no fault: %v", err)
			}
			return
		}
		text, err := cmdb.YAML(objects...)
		if err != nil {
			t.Fatal(err)
		}
		again, err := cmdb.Parse(cmdb.Document{Name: "again", Data: text})
		if err != nil {
			t.Fatalf("%v\n%q\n%s", err, data, text)
		}
		if diff := cmp.Diff(objects, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s\n%q\n%s", diff, data, text)
		}
	})
}
