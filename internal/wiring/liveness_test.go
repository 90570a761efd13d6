package wiring_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/internal/wiring"
)

// fleet is a CMDB and a name service that note what they are told, and fail where told to.
type fleet struct {
	mu      sync.Mutex
	devices map[string]cmdb.Device
	log     []string
	fail    map[string]error // by "verb device"
}

func newFleet(names ...string) *fleet {
	f := &fleet{devices: make(map[string]cmdb.Device), fail: make(map[string]error)}
	for _, name := range names {
		f.devices[name] = cmdb.Device{Name: name, State: cmdb.InService}
	}
	return f
}

func (f *fleet) Devices(cmdb.DeviceFilter) []cmdb.Device {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []cmdb.Device
	for _, d := range f.devices {
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b cmdb.Device) int { return cmp.Compare(b.Name, a.Name) })
	return out
}

func (f *fleet) Device(name string) (cmdb.Device, error) { return f.devices[name], nil }

// do notes a verb, unless it fails.
func (f *fleet) do(verb, name string, change func(*cmdb.Device)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail[verb+" "+name]; err != nil {
		return err
	}
	d := f.devices[name]
	change(&d)
	f.devices[name] = d
	f.log = append(f.log, verb+" "+name)
	return nil
}

func (f *fleet) MarkFaulty(_ context.Context, name, reason string, _ ...cmdb.Option) error {
	return f.do("mark", name, func(d *cmdb.Device) { d.State, d.Fault = cmdb.Faulty, reason })
}

func (f *fleet) Repair(_ context.Context, name string, _ ...cmdb.Option) error {
	return f.do("repair", name, func(d *cmdb.Device) { d.State, d.Fault = cmdb.Idle, "" })
}

func (f *fleet) withdraw(_ context.Context, name string) error {
	return f.do("withdraw", name, func(*cmdb.Device) {})
}

func (f *fleet) set(name string, state cmdb.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.devices[name] = cmdb.Device{Name: name, State: state}
}

// told returns what was done since the last call.
func (f *fleet) told() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	log := f.log
	f.log = nil
	return log
}

// watch runs a Liveness over the fleet, with a grace period of 10 s.
func (f *fleet) watch(t *testing.T, events *[]string) *wiring.Liveness {
	t.Helper()
	l, err := wiring.NewLiveness(wiring.LivenessConfig{
		CMDB: f, Withdraw: f.withdraw, Grace: 10 * time.Second,
		OnEvent: func(e wiring.LivenessEvent) { *events = append(*events, strings.TrimSpace(e.Action+" "+e.Device)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return l
}

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestLiveness(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		run  func(t *testing.T, f *fleet, l *wiring.Liveness)
		want []string // events, in order
	}{
		{"an agent that never comes has the grace period", func(t *testing.T, f *fleet, l *wiring.Liveness) {
			for _, name := range []string{"b", "c", "d"} {
				l.Seen(name, true)
			}
			after(9 * time.Second)
			expect(t, "before the grace period ends", f.told())
			after(4 * time.Second)
			expect(t, "after it", f.told(), "withdraw a", "mark a")
		}, []string{"faulty a"}},
		{"an agent that comes back in time is not lost", func(t *testing.T, f *fleet, l *wiring.Liveness) {
			l.Seen("a", false)
			after(9 * time.Second)
			l.Seen("a", true)
			after(9 * time.Second)
			l.Seen("a", false) // away anew: the grace period is anew, too
			after(9 * time.Second)
			expect(t, "done", f.told())
		}, nil},
		{"what was idle returns with its agent", func(t *testing.T, f *fleet, l *wiring.Liveness) {
			f.set("a", cmdb.Idle)
			l.Seen("a", false)
			after(13 * time.Second)
			l.Seen("a", true)
			after(time.Second)
			expect(t, "done", f.told(), "withdraw a", "mark a", "repair a")
		}, []string{"faulty a", "returned a"}},
		{"what was in service waits for a person", func(t *testing.T, f *fleet, l *wiring.Liveness) {
			l.Seen("a", false)
			after(13 * time.Second)
			l.Seen("a", true)
			after(time.Minute)
			expect(t, "done", f.told(), "withdraw a", "mark a")
		}, []string{"faulty a"}},
		{"what is retired is nobody's loss", func(t *testing.T, f *fleet, l *wiring.Liveness) {
			f.set("a", cmdb.Retired)
			l.Seen("a", false)
			after(time.Minute)
			expect(t, "done", f.told())
		}, nil},
		{"a device made again under a name has a grace period of its own", func(t *testing.T, f *fleet, l *wiring.Liveness) {
			l.Seen("a", false)
			after(8 * time.Second)
			f.set("a", cmdb.Retired)
			after(8 * time.Second)
			f.set("a", cmdb.Idle)
			after(8 * time.Second)
			expect(t, "done", f.told())
		}, nil},
		{"two may always be lost", func(t *testing.T, f *fleet, l *wiring.Liveness) {
			l.Seen("a", false)
			l.Seen("b", false)
			after(13 * time.Second)
			expect(t, "done", f.told(), "withdraw a", "mark a", "withdraw b", "mark b")
		}, []string{"faulty a", "faulty b"}},
		{"three of four at once are the network's fault", func(t *testing.T, f *fleet, l *wiring.Liveness) {
			for _, name := range []string{"a", "b", "c"} {
				l.Seen(name, false)
			}
			after(time.Minute)
			expect(t, "while three are away", f.told())
			l.Seen("c", true)
			after(3 * time.Second)
			expect(t, "once it is two", f.told(), "withdraw a", "mark a", "withdraw b", "mark b")
		}, []string{"held", "faulty a", "faulty b"}},
		{"a device that cannot be withdrawn keeps no other one, and is not marked", func(t *testing.T, f *fleet, l *wiring.Liveness) {
			f.fail["withdraw a"] = errors.New("no store")
			l.Seen("a", false)
			l.Seen("b", false)
			after(13 * time.Second)
			expect(t, "while a cannot be withdrawn", f.told(), "withdraw b", "mark b")
			f.mu.Lock()
			delete(f.fail, "withdraw a")
			f.mu.Unlock()
			after(3 * time.Second)
			expect(t, "when it can", f.told(), "withdraw a", "mark a")
		}, []string{"faulty b", "faulty a"}},
		{"a device that cannot be marked is tried again", func(t *testing.T, f *fleet, l *wiring.Liveness) {
			f.fail["mark a"] = errors.New("no store")
			l.Seen("a", false)
			after(12 * time.Second)
			f.mu.Lock()
			delete(f.fail, "mark a")
			f.mu.Unlock()
			after(3 * time.Second)
			expect(t, "done", slices.Compact(f.told()), "withdraw a", "mark a")
		}, []string{"faulty a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet("a", "b", "c", "d")
				var events []string
				l := f.watch(t, &events)
				for _, name := range []string{"b", "c", "d"} {
					l.Seen(name, true)
				}
				synctest.Wait()
				test.run(t, f, l)
				synctest.Wait()
				expect(t, "events", events, test.want...)
			})
		})
	}
}

func TestLivenessConfigFaults(t *testing.T) {
	t.Parallel()
	_, err := wiring.NewLiveness(wiring.LivenessConfig{Grace: -1, Share: 2})
	for _, field := range []string{"CMDB", "Withdraw", "Grace", "Share"} {
		if !strings.Contains(fmt.Sprint(err), field) {
			t.Errorf("the error does not name %s: %v", field, err)
		}
	}
}
