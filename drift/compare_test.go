package drift_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/drift/drifttest"
)

func TestCompareProcessesAndPorts(t *testing.T) {
	t.Parallel()
	web := drift.Process{Name: "web", Exe: "bin/web", Argv: []string{"web", "-p", "80"}}
	tests := map[string]struct {
		want, live drift.State
		found      []string
	}{
		"by executable and arguments": {
			drift.State{Processes: []drift.Process{web}},
			drift.State{Processes: []drift.Process{{Exe: "bin/web", Argv: []string{"/srv/bin/web", "-v", "-p", "80"}}}}, nil},
		"by name, nothing else known": {
			drift.State{Processes: []drift.Process{web}}, drift.State{Processes: []drift.Process{{Name: "web", PID: 7}}}, nil},
		"by name, other program": {
			drift.State{Processes: []drift.Process{web}},
			drift.State{Processes: []drift.Process{{Name: "web", Exe: "tmp/miner", PID: 7}}}, []string{"web: exe"}},
		"by name, other arguments": {
			drift.State{Processes: []drift.Process{web}},
			drift.State{Processes: []drift.Process{{Name: "web", Exe: "bin/web", Argv: []string{"web", "-p", "81"}}}}, []string{"web: argv"}},
		"too many": {
			drift.State{Processes: []drift.Process{{Name: "web"}}},
			drift.State{Processes: []drift.Process{{Name: "web"}, {Name: "web"}}}, []string{"web: count"}},
		"stopped": {
			drift.State{Processes: []drift.Process{{Name: "web", Count: 2}}},
			drift.State{Processes: []drift.Process{{Name: "web", PID: 7}, {Name: "web", PID: 8, Stopped: true}}}, []string{"web: stopped"}},
		"stopped, and not what is declared": {
			drift.State{Processes: []drift.Process{web}},
			drift.State{Processes: []drift.Process{{Name: "web", Exe: "tmp/miner", Stopped: true}}}, []string{"web: exe"}},
		"one process is not counted twice": {
			drift.State{Processes: []drift.Process{{Name: "a", Exe: "x"}, {Name: "b", Exe: "x"}}},
			drift.State{Processes: []drift.Process{{Exe: "bin/x"}}}, []string{"b: missing"}},
		"undeclared": {
			drift.State{Exact: drift.Exact{Processes: true, Ports: true}},
			drift.State{Processes: []drift.Process{{Exe: "bin/x", PID: 9}}, Ports: []drift.Port{{Port: 22}}},
			[]string{"tcp/22: unexpected", "x[9]: unexpected"}},
		"port at all addresses": {
			drift.State{Ports: []drift.Port{{Port: 80, Addr: "10.0.0.1"}}},
			drift.State{Ports: []drift.Port{{Port: 80, Addr: "::"}}}, nil},
		"port at another address": {
			drift.State{Ports: []drift.Port{{Port: 80, Addr: "10.0.0.1"}}},
			drift.State{Ports: []drift.Port{{Port: 80, Addr: "10.0.0.2"}}}, []string{"tcp/80: missing"}},
		"udp is not tcp": {
			drift.State{Ports: []drift.Port{{Port: 53, Proto: "udp"}}},
			drift.State{Ports: []drift.Port{{Port: 53}}}, []string{"udp/53: missing"}},
		"not seen, not compared": {
			drift.State{Processes: []drift.Process{web}, Ports: []drift.Port{{Port: 80}}},
			drift.State{Coverage: []drift.Coverage{{Kinds: []drift.Kind{drift.KindPort}, Blind: true}}}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.found, differences(drift.Compare(test.want, test.live))); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNamedProcesses(t *testing.T) {
	t.Parallel()
	var fault error
	lister := drift.Named(drifttest.NewProcesses(drift.Process{Exe: "bin/x", PID: 7}, drift.Process{Exe: "bin/y", PID: 8}),
		func(context.Context) (map[int]string, error) { return map[int]string{7: "web"}, fault })
	list, err := lister.Processes(t.Context())
	try(t, err)
	if list.Processes[0].Name != "web" || list.Processes[1].Name != "" || len(list.Gaps) != 0 {
		t.Errorf("named: %+v", list)
	}
	fault = errors.New("supervisor is away")
	if list, err = lister.Processes(t.Context()); err != nil || len(list.Gaps) != 1 {
		t.Errorf("without names: %+v, %v", list, err)
	}
}
