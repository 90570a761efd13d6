package wiring_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/wiring"
	"github.com/zhiyun-ops/zhiyun/l5"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// model is a CMDB that is given.
type model struct {
	modules []cmdb.Module
	devices []cmdb.Device
}

func (m model) Modules() []cmdb.Module { return m.modules }
func (m model) Sites() []cmdb.Site {
	return []cmdb.Site{{Name: "sz-1", City: "shenzhen"}, {Name: "sh-1", City: "shanghai"}}
}

func (m model) Devices(f cmdb.DeviceFilter) []cmdb.Device {
	var out []cmdb.Device
	for _, d := range m.devices {
		if (f.Module == "" || d.Module == f.Module) && (f.State == "" || d.State == f.State) {
			out = append(out, d)
		}
	}
	return out
}

// names is a name service that is given, by service.
type names map[string][]l5server.InstanceStatus

func (n names) Instances(service string) []l5server.InstanceStatus { return n[service] }

func instance(addr, device string, share int, state l5.State) l5server.InstanceStatus {
	return l5server.InstanceStatus{Instance: l5.Instance{Addr: addr, Device: device, Share: share, State: state}}
}

func notPaused(context.Context, string) (bool, error) { return false, nil }

func TestFleetShowsModulesWithTheirDevices(t *testing.T) {
	t.Parallel()
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	in := model{
		modules: []cmdb.Module{
			{Name: "plain"}, // names no capacity: left alone
			{
				Name: "m", Services: []cmdb.ServiceSpec{{ID: "m.a"}, {ID: "m.b"}},
				Scale: cmdb.ScaleSpec{Min: 1, Max: 9, Loss: 0.01, Capacity: map[string]float64{"t": 10}, City: "shenzhen", Sites: []string{"sz-1"}, Types: []string{"t"},
					Params: map[string]string{"in_after": "5m"}},
			},
		},
		devices: []cmdb.Device{
			{Name: "full", Site: "sz-1", Type: "t", State: cmdb.InService, Module: "m", Since: since},
			{Name: "gray", Site: "sz-1", Type: "t", State: cmdb.InService, Module: "m"},
			{Name: "unrouted", Site: "sh-1", Type: "t", State: cmdb.InService, Module: "m"},
			{Name: "coming", Site: "sz-1", Type: "t", State: cmdb.Held, Module: "m", HeldFrom: cmdb.Idle},
			{Name: "leaving", Site: "sz-1", Type: "t", State: cmdb.Held, Module: "m", HeldFrom: cmdb.InService},
			{Name: "broken", Site: "sz-1", Type: "t", State: cmdb.Faulty, Module: "m"},
			{Name: "free", Site: "sh-1", Type: "t", State: cmdb.Idle},
		},
	}
	fleet := wiring.Fleet{CMDB: in, Paused: notPaused, Names: names{
		"m.a": {instance("a:1", "full", 100, l5.StateUp), instance("b:1", "gray", 50, l5.StateUp)},
		"m.b": {instance("a:2", "full", 100, l5.StateUp), instance("b:2", "gray", 10, l5.StateUp)},
	}}
	got, err := fleet.Modules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name, site, city string, share int) scale.Device {
		return scale.Device{Name: name, Site: site, City: city, Type: "t", Share: share}
	}
	full := at("full", "sz-1", "shenzhen", 100)
	full.Since = since
	want := []scale.Module{{
		Name: "m", Min: 1, Max: 9, Loss: 0.01, Capacity: map[string]float64{"t": 10}, Policy: scale.Policy{InAfter: 5 * time.Minute},
		Prefs: scale.Prefs{Cities: []string{"shenzhen"}, Sites: []string{"sz-1"}, Types: []string{"t"}},
		Serving: []scale.Device{full, at("gray", "sz-1", "shenzhen", 10), // the least share of its services
			at("unrouted", "sh-1", "shanghai", 100), at("leaving", "sz-1", "shenzhen", 0)},
		Pending: []scale.Device{at("coming", "sz-1", "shenzhen", 0)},
		Leaving: []string{"leaving"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
	idle, err := fleet.Idle(t.Context())
	if diff := cmp.Diff([]scale.Candidate{{Name: "free", Site: "sh-1", City: "shanghai", Type: "t"}}, idle); err != nil || diff != "" {
		t.Errorf("idle: %v (-want +got):\n%s", err, diff)
	}
}

// A module with a fault keeps no other from being scaled, and is told of; that automation is stopped must be known.
func TestFleetTellsFaults(t *testing.T) {
	t.Parallel()
	capacity := map[string]float64{"t": 1}
	bad := cmdb.Module{Name: "bad", Scale: cmdb.ScaleSpec{Capacity: capacity, Params: map[string]string{"in_after": "soon"}}}
	good := cmdb.Module{Name: "good", Scale: cmdb.ScaleSpec{Capacity: capacity}}
	told := make(map[string]error)
	fleet := func(modules ...cmdb.Module) wiring.Fleet {
		return wiring.Fleet{CMDB: model{modules: modules}, Names: names{}, Paused: notPaused, Fault: func(m string, err error) { told[m] = err }}
	}
	got, err := fleet(bad, good).Modules(t.Context())
	if err != nil || len(got) != 1 || got[0].Name != "good" {
		t.Errorf("beside a sound module: %v, %v", got, err)
	}
	if told["bad"] == nil || told["good"] != nil {
		t.Errorf("told %v", told)
	}
	if _, err := fleet(bad).Modules(t.Context()); err == nil || !strings.Contains(err.Error(), "bad") {
		t.Errorf("alone: %v", err)
	}
	unknown := fleet(good)
	unknown.Paused = func(context.Context, string) (bool, error) { return false, errors.New("no store") }
	if _, err := unknown.Modules(t.Context()); err == nil {
		t.Error("a module of which it is not known whether it is paused was handed out")
	}
	paused := fleet(good)
	paused.Paused = func(context.Context, string) (bool, error) { return true, nil }
	if got, err := paused.Modules(t.Context()); err != nil || !got[0].Paused {
		t.Errorf("paused: %v, %v", got, err)
	}
}

func TestScalePolicy(t *testing.T) {
	t.Parallel()
	all := map[string]string{
		"react_within": "1s", "stale_after": "2s", "window": "3s", "lead": "4s", "in_after": "5s", "cooldown": "6s", "cooldown_in": "7s", "backoff": "8s",
		"target": "0.5", "high": "0.9", "out_step": "1", "in_step": "2", "per_hour": "3", "no_forecast": "true",
	}
	want := scale.Policy{
		ReactWithin: time.Second, StaleAfter: 2 * time.Second, Window: 3 * time.Second, Lead: 4 * time.Second, InAfter: 5 * time.Second,
		Cooldown: 6 * time.Second, CooldownIn: 7 * time.Second, Backoff: 8 * time.Second, Target: 0.5, High: 0.9, OutStep: 1, InStep: 2, PerHour: 3, NoForecast: true,
	}
	got, err := wiring.ScalePolicy(all)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	_, err = wiring.ScalePolicy(map[string]string{"lead": "long", "target": "x", "in_step": "1.5", "no_forecast": "maybe", "colour": "red"})
	for _, part := range []string{"scale.params.lead", "scale.params.target", "scale.params.in_step", "scale.params.no_forecast", "scale.params.colour", "there are backoff, cooldown"} {
		if !strings.Contains(fmt.Sprint(err), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
}

func TestGrayPolicy(t *testing.T) {
	t.Parallel()
	changed := gray.Deck()
	changed.Stages, changed.Soak, changed.MinRequests, changed.MinReports, changed.Margin, changed.Curtail = []int{20, 100}, 2*time.Second, 50, 3, 0.1, true
	for _, test := range []struct {
		name  string
		spec  cmdb.GraySpec
		want  gray.Policy
		fault string
	}{
		{"nothing said", cmdb.GraySpec{}, gray.Default(), ""},
		{"default", cmdb.GraySpec{Policy: "default"}, gray.Default(), ""},
		{"the deck's", cmdb.GraySpec{Policy: "deck"}, gray.Deck(), ""},
		{"with overrides", cmdb.GraySpec{Policy: "deck", Params: map[string]string{
			"stages": "20, 100", "soak": "2s", "min_requests": "50", "min_reports": "3", "margin": "0.1", "curtail": "true"}}, changed, ""},
		{"one there is not", cmdb.GraySpec{Policy: "brave"}, gray.Policy{}, "there are default and deck"},
		{"stages that are none", cmdb.GraySpec{Params: map[string]string{"stages": "ten"}}, gray.Policy{}, "10,50,100"},
		{"a parameter there is not", cmdb.GraySpec{Params: map[string]string{"colour": "red"}}, gray.Policy{}, "gray.params.colour"},
	} {
		got, err := wiring.GrayPolicy(test.spec)
		if test.fault != "" {
			if !strings.Contains(fmt.Sprint(err), test.fault) {
				t.Errorf("%s: the error does not say %q: %v", test.name, test.fault, err)
			}
			continue
		}
		if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", test.name, err, diff)
		}
	}
}

func TestDriftModes(t *testing.T) {
	t.Parallel()
	got := wiring.DriftModes(cmdb.DriftSpec{Mode: "observe", Modes: map[string]string{"file": "repair", "colour": "repair"}})
	for _, kind := range drift.Kinds() {
		want := drift.Mode("observe")
		if kind == drift.KindFile {
			want = "repair"
		}
		if got[kind] != want {
			t.Errorf("%s is %q, want %q", kind, got[kind], want)
		}
	}
	if len(got) != len(drift.Kinds()) || len(wiring.DriftModes(cmdb.DriftSpec{})) != 0 {
		t.Errorf("got %v", got)
	}
}
