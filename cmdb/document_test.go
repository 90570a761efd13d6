package cmdb_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/cmdb"
)

func TestParseNamesPlaceAndMend(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text, want string }{
		{"no kind", "name: x", `d.yaml:1: kind "" is missing; use one of site, device_type, init_profile, business, module, device`},
		{"unknown kind", "kind: sight\nname: x", `kind "sight" is unknown`},
		{"unknown field", "kind: site\nname: x\ncity: c\ntitel: y", `d.yaml:4: site x: titel "y" is an unknown field; did you mean title?`},
		{"twice", "kind: site\nname: x\ncity: c\ncity: d", `d.yaml:4: site x: city "city" is there twice; keep one of them`},
		{"bad name", "kind: site\nname: X y\ncity: c", `name "X y" is not a name`},
		{"number", "kind: device_type\nname: t\ncores: many", `d.yaml:3: device_type t: cores "many" is no whole number; write digits only`},
		{"list", "kind: module\nname: m\npackages: cart", `d.yaml:3: module m: packages "cart" is no list`},
		{"nested", "kind: module\nname: m\npackages:\n- name: p\n  version: 1\n- name: p\n  version: 2", `d.yaml:6: module m: packages[1].name "p" is there twice, first at 0; keep one of them`},
		{"path", "kind: module\nname: m\nfiles: [{source: s, path: ../../etc/passwd}]", `files[0].path "../../etc/passwd" is not a path below the device's root`},
		{"duration", "kind: module\nname: m\nscripts:\n- {name: s, path: p, timeout: soon}", `d.yaml:4: module m: scripts[0].timeout "soon" cannot be read; write a duration such as 30s or 1m30s`},
		{"syntax", "kind: [", `d.yaml: is not YAML: line 1`},
		{"scalar", "hello", `d.yaml:1: is no object`},
		{"aliases that explode", "kind: module\nname: m\nprocesses:\n- &p {name: p, command: [" + strings.Repeat("a,", 999) + "a]}\n" + strings.Repeat("- *p\n", 999), `is too deep or too large`},
		{"bool and float", "kind: module\nname: m\nscale: {min: 3, max: 2, loss: 1.5, capacity: {b6: 0}}", `scale.loss "1.5" is not a share; give a number from 0 to 1`},
		{"bounds", "kind: module\nname: m\nscale: {min: 3, max: 2}", `d.yaml:3: module m: scale.max "2" is below scale.min; give at least 3, or leave it out for no bound`},
		{"no number", "kind: module\nname: m\nscale: {loss: .nan}", `scale.loss ".nan" is no number`},
		{"port", "kind: module\nname: m\nports: [{port: 99999, protocol: sctp, process: x}]", `ports[0].port "99999" is out of range; give a number from 1 to 65535`},
		{"process of a port", "kind: module\nname: m\nports: [{port: 9, process: x}]", `ports[0].process "x" names no process of this module`},
		{"package of a script", "kind: module\nname: m\nscripts: [{name: s, path: p, package: q}]", `scripts[0].package "q" names no package of this module`},
		{"mode", "kind: module\nname: m\nfiles: [{source: s, path: p, mode: rw}]", `files[0].mode "rw" is not a file mode; give it in octal, such as 0644`},
		{"two sources of a path", "kind: module\nname: m\nfiles: [{source: s, path: p}]\nconfigs: [{template: t, path: p}]", `"p" is there twice, first at 0`},
		{"virtual address", "kind: module\nname: m\nvirtual_addrs: [{name: v, addr: nowhere, port: 1}]", `virtual_addrs[0].addr "nowhere" is not host:port`},
		{"test", "kind: module\nname: m\ntests: [{kind: ping}]", `tests[0].kind "ping" is unknown; use one of tcp, http, l5`},
		{"test of a service", "kind: module\nname: m\ntests: [{kind: l5, service: x}]", `tests[0].service "x" names no service of this module`},
		{"drift", "kind: module\nname: m\ndrift: {mode: mend, modes: {moon: repair}}", `drift.mode "mend" is unknown; use one of observe, repair`},
		{"user", "kind: init_profile\nname: p\nusers: [{name: a}, {name: a, uid: -1}]\ndirs: [{path: ..}]", `users[1].uid "-1" is out of range`},
		{"address of no host", "kind: device\nname: d\naddr: \"::\"\nsite: s\ntype: t", `addr "::" is of no host; give the one at which`},
		{"time", "kind: device\nname: d\naddr: 1.2.3.4\nsite: s\ntype: t\nheld_until: soon", `held_until "soon" cannot be read; write a time such as`},
		{"object", "kind: module\nname: m\nscale: 3", `scale "3" is no object`},
		{"table", "kind: site\nname: x\ncity: c\nlabels: [a]", `labels "" is no table`},
		{"label", "kind: site\nname: x\ncity: c\nlabels: {\"\": y}", `is not a label`},
		{"parent", "kind: business\nname: b\nowner: o\nparent: b", `parent "b" is the business itself`},
		{"a long value", "kind: site\nname: " + strings.Repeat("X", 200) + "\ncity: c", `XXX..." is not a name`},
		{"merge key", "kind: site\nname: x\ncity: c\nlabels: {<<: {a: b}}", `has a key that is no text`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := cmdb.Parse(cmdb.Document{Name: "d.yaml", Data: []byte(test.text)})
			if !errors.Is(err, cmdb.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("want %s\ngot  %v", test.want, err)
			}
		})
	}
}
