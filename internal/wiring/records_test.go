package wiring_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/internal/wiring"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/scale"
)

const bucket = 10 * time.Second

// book is a records.DB whose time stands until it is moved.
type book struct {
	*records.DB
	t     *testing.T
	ms    atomic.Int64
	start time.Time
}

func newBook(t *testing.T) *book {
	t.Helper()
	b := &book{t: t, start: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)}
	b.ms.Store(b.start.UnixMilli())
	var err error
	if b.DB, err = records.Open(filepath.Join(t.TempDir(), "r.db"), records.Config{Bucket: bucket, Beat: time.Hour, Now: b.now}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := b.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		b.Close()
	})
	b.must(b.Audit(t.Context(), records.Entry{Actor: "test", Action: "begin"})) // its session has begun
	return b
}

func (b *book) now() time.Time { return time.UnixMilli(b.ms.Load()).UTC() }
func (b *book) at(seconds int) {
	b.ms.Store(b.start.Add(time.Duration(seconds) * time.Second).UnixMilli())
}
func (b *book) moment(seconds int) time.Time {
	return b.start.Add(time.Duration(seconds) * time.Second)
}

func (b *book) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// report is what one caller says of an instance, through the name service's Sink.
func (b *book) report(service, addr string, requests, failures, rejected int64) {
	b.t.Helper()
	b.must(wiring.Sink{Records: b.DB}.Outcomes(b.t.Context(), []l5server.Outcome{{
		Caller: "web", Service: service, Addr: addr, Device: "d-" + addr, Requests: requests, Failures: failures, Rejected: rejected, Reports: 1,
	}}))
}

// heard notes an audience.
func (b *book) heard(service string, watching, lost int) {
	b.t.Helper()
	b.must(b.AddAudience(b.t.Context(), []records.Audience{{Service: service, Watching: watching, Lost: lost}}))
}

func TestOutcomesSumPerInstance(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.at(1)
	b.report("s", "a:1", 10, 1, 0)
	b.report("s", "b:1", 5, 0, 2)
	b.at(11)
	b.report("s", "a:1", 20, 3, 1)
	b.at(21)
	b.report("s", "a:1", 1000, 1000, 0) // in the bucket that is not over
	outcomes := wiring.Outcomes{Records: b.DB, Bucket: bucket}
	for _, test := range []struct {
		name     string
		from, to int
		want     []gray.MemberOutcome
		complete bool
	}{
		{"two whole buckets", 0, 20, []gray.MemberOutcome{{ID: "a:1", Requests: 30, Failures: 4, Reports: 2}, {ID: "b:1", Requests: 5, Reports: 1}}, true},
		{"the ends are rounded inwards", 5, 21, []gray.MemberOutcome{{ID: "a:1", Requests: 20, Failures: 3, Reports: 1}}, true},
		{"no bucket fits in", 12, 18, nil, true},
		{"before the records began", -20, 0, nil, false},
	} {
		got, complete, err := outcomes.Outcomes(t.Context(), "s", b.moment(test.from), b.moment(test.to))
		if err != nil || complete != test.complete {
			t.Errorf("%s: complete %v, %v", test.name, complete, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func manifest(services ...string) func(string) (cmdb.Module, error) {
	return func(name string) (cmdb.Module, error) {
		if name != "m" {
			return cmdb.Module{}, fmt.Errorf("module %s: %w", name, cmdb.ErrNotFound)
		}
		var m cmdb.Module
		m.Name = name
		for _, id := range services {
			m.Services = append(m.Services, cmdb.ServiceSpec{ID: id})
		}
		return m, nil
	}
}

func TestLoadAddsServicesUp(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.at(1)
	b.report("s", "a:1", 100, 10, 20)
	b.report("t", "b:1", 50, 0, 10)
	b.at(11)
	b.report("s", "a:1", 300, 0, 0)
	b.at(25)
	got, err := wiring.Load{Records: b.DB, Module: manifest("s", "t")}.Load(t.Context(), "m", b.moment(0), b.moment(30))
	if err != nil {
		t.Fatal(err)
	}
	want := []scale.Sample{
		{At: b.moment(0), Rate: 15, Lost: 4, Valid: true},
		{At: b.moment(10), Rate: 30, Valid: true},
		{At: b.moment(20)}, // not over yet
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("load (-want +got):\n%s", diff)
	}
	if _, err := (wiring.Load{Records: b.DB, Module: manifest()}).Load(t.Context(), "nobody", b.moment(0), b.moment(30)); !errors.Is(err, cmdb.ErrNotFound) {
		t.Errorf("a module that is not there: %v", err)
	}
}

// I7: when all callers' agents are cut off, the module's load is unknown, not zero; the decider holds. One silent service
// of two makes the module's load unknown. A service that nobody calls has no load.
func TestSilenceIsAGap(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.at(1)
	b.heard("s", 3, 0)
	b.report("s", "a:1", 100, 0, 0)
	b.at(11)
	b.heard("s", 0, 3) // cut off
	b.at(31)
	b.heard("s", 3, 0) // and back
	b.report("s", "a:1", 100, 0, 0)
	b.at(41)
	b.heard("s", 2, 1) // one of three, while the others report
	b.report("s", "a:1", 70, 0, 0)
	b.at(51)
	b.heard("s", 0, 0) // they all left
	b.at(75)
	shape := func(services ...string) string {
		samples, err := wiring.Load{Records: b.DB, Module: manifest(services...)}.Load(t.Context(), "m", b.moment(0), b.moment(70))
		b.must(err)
		out := ""
		for _, s := range samples {
			switch {
			case !s.Valid:
				out += "?"
			case s.AtLeast:
				out += ">"
			case s.Rate > 0:
				out += "+"
			default:
				out += "0"
			}
		}
		return out
	}
	// The bucket at 30 began with all cut off, that at 50 with two callers there: that nobody reported in it is no proof of rest.
	if got, want := shape("s"), "+??>>?0"; got != want {
		t.Errorf("load of s is %s, want %s", got, want)
	}
	if got, want := shape("s", "nobody"), "+??>>?0"; got != want {
		t.Errorf("with a service that nobody calls it is %s, want %s", got, want)
	}
	m := scale.Module{
		Name: "m", Loss: 0.01, Min: 1, Capacity: map[string]float64{"t": 10},
		Serving: []scale.Device{{Name: "d1", Type: "t", Share: 100}, {Name: "d2", Type: "t", Share: 100}},
		Policy:  scale.Policy{ReactWithin: 10 * time.Second, InAfter: 20 * time.Second, StaleAfter: 15 * time.Second, Target: 0.7},
	}
	for at, want := range map[int]string{12: "", 31: scale.CodeDataStale} { // 12: one bucket of load 10 a second
		h, err := wiring.Load{Records: b.DB, Module: manifest("s")}.Load(t.Context(), "m", b.moment(0), b.moment(at))
		b.must(err)
		d := scale.Decide(b.moment(at), m, h)
		if !d.Hold() || want != "" && d.Reason.Code != want {
			t.Errorf("at %d s the decider says %+d, %s; want it to hold: %s", at, d.Delta, d.Reason, want)
		}
	}
}

// listed is an audience that the test sets, and records that may fail.
type listed struct {
	mu   sync.Mutex
	now  []l5server.Audience
	fail error
	got  []string
}

func (l *listed) Audience() []l5server.Audience {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

func (l *listed) AddAudience(_ context.Context, audiences []records.Audience) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	for _, a := range audiences {
		l.got = append(l.got, fmt.Sprint(a))
	}
	return nil
}

func (l *listed) set(fail error, now ...l5server.Audience) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail, l.now = fail, now
}

func TestAudienceNotesWhatChanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &listed{}
		a, err := wiring.NewAudience(wiring.AudienceConfig{Names: l, Records: l, Every: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		s, u := l5server.Audience{Service: "s", Watching: 2}, l5server.Audience{Service: "u", Watching: 1}
		l.set(nil, s, u)
		after(3 * time.Second)
		expect(t, "first", l.got, "{s 2 0}", "{u 1 0}")
		l.set(errors.New("disk full"), l5server.Audience{Service: "s", Lost: 2})
		after(2 * time.Second)
		l.set(nil, l5server.Audience{Service: "s", Lost: 2}) // what could not be written is written by the next look
		after(2 * time.Second)
		expect(t, "then", l.got[2:], "{s 0 2}", "{u 0 0}")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if _, err := wiring.NewAudience(wiring.AudienceConfig{}); err == nil {
		t.Error("an empty config was taken")
	}
}
