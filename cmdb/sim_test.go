package cmdb_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/cmdb/memstore"
	seeded "github.com/zhiyun-ops/zhiyun/internal/sim"
)

const simDevices = 5

// belief is that a device is held; its owner knows when that ends.
type belief struct {
	owner string
	until time.Time
}

// sim drives one DB by random verbs of several owners. Between the decision of any verb and its write another
// whole verb may come in, which is all that concurrency can do to it; so a seed is one interleaving.
type sim struct {
	t     testing.TB
	db    *cmdb.DB
	rng   *rand.Rand
	clock time.Time
	depth int
	keys  int
	held  map[string]belief // by device: what the owners know from the answers they got
	story []string
	fault string
}

func newSim(t testing.TB, seed uint64, prepare func(*cmdb.DB)) (*sim, func()) {
	s := &sim{t: t, rng: rand.New(rand.NewPCG(seed, 1)), clock: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), held: map[string]belief{}}
	db, err := cmdb.New(cmdb.Config{Store: memstore.New(), ExpireEvery: 1000 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	s.db = db
	db.SetClock(func() time.Time { return s.clock })
	db.SetBetween(func() {
		if s.depth > 0 && s.depth < 3 && s.rng.IntN(3) == 0 {
			s.act()
		}
	})
	prepare(db)
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { _ = db.Run(ctx) })
	text := "kind: site\nname: s\ncity: c\n---\nkind: device_type\nname: t\ncores: 1\n---\nkind: module\nname: m\n"
	for i := range simDevices {
		text += fmt.Sprintf("---\nkind: device\nname: d%d\naddr: 10.0.0.%d\nsite: s\ntype: t\n", i, i)
	}
	apply(t, db, docs(text))
	return s, func() { cancel(); wait.Wait() }
}

// act does one random verb of a random owner, and keeps the owners' belief.
func (s *sim) act() {
	if s.fault != "" {
		return
	}
	s.depth++
	defer func() { s.depth-- }()
	ctx := context.Background()
	owner := fmt.Sprintf("e%d", s.rng.IntN(4))
	name := fmt.Sprintf("d%d", s.rng.IntN(simDevices))
	verb := []string{"acquire", "acquire", "release", "serve", "hold", "faulty", "repair", "renew", "expire"}[s.rng.IntN(9)]
	var err error
	switch verb {
	case "acquire":
		s.keys++
		var got []cmdb.Device
		got, err = s.db.Acquire(ctx, cmdb.AcquireRequest{Owner: owner, Key: strconv.Itoa(s.keys), Module: "m", Count: 1 + s.rng.IntN(2), TTL: time.Duration(1+s.rng.IntN(5)) * time.Minute})
		for _, d := range got {
			s.believe(d, owner)
		}
	case "release":
		var released []string
		released, err = s.db.Release(ctx, owner, []string{name})
		for _, d := range released {
			s.forget(d, owner)
		}
	case "serve":
		d, _ := s.db.Device(name)
		if err = s.db.Serve(ctx, owner, name, "m"); err == nil && s.held[name].owner == owner && d.State == cmdb.Held {
			s.forget(name, owner)
		}
	case "hold":
		d, _ := s.db.Device(name)
		var got []cmdb.Device
		if got, err = s.db.Hold(ctx, owner, []string{name}, time.Minute); err == nil && d.State == cmdb.InService && s.held[name].owner != owner {
			s.believe(got[0], owner)
		}
	case "faulty":
		if err = s.db.MarkFaulty(ctx, name, "sim"); err == nil {
			delete(s.held, name)
		}
	case "repair":
		err = s.db.Repair(ctx, name)
	case "renew":
		until := s.clock.Add(3 * time.Minute)
		if err = s.db.Renew(ctx, owner, []string{name}, 3*time.Minute); err == nil {
			s.held[name] = belief{owner, until}
		}
	case "expire":
		s.clock = s.clock.Add(time.Minute)
		s.db.ExpireDue(ctx)
	}
	s.story = append(s.story, fmt.Sprintf("%*s%s %s %s: %v", s.depth*2, "", owner, verb, name, err))
	if err != nil && !errors.Is(err, cmdb.ErrState) && !errors.Is(err, cmdb.ErrNoDevice) {
		s.fail("%s: %v", verb, err)
	}
	s.check()
}

func (s *sim) believe(d cmdb.Device, owner string) {
	if other, taken := s.held[d.Name]; taken && other.until.After(s.clock) {
		s.fail("I10: %s was given to %s while %s holds it", d.Name, owner, other.owner)
	}
	s.held[d.Name] = belief{owner, d.HeldUntil}
}

func (s *sim) forget(device, owner string) {
	if s.held[device].owner == owner {
		delete(s.held, device)
	}
}

// check holds the record against I10 and the owners' belief.
func (s *sim) check() {
	sum := 0
	for _, n := range s.db.Counts() {
		sum += n
	}
	if sum != simDevices {
		s.fail("I10: %d devices in all, want %d", sum, simDevices)
	}
	if s.depth > 1 {
		return // the verb around this one has not told its outcome yet
	}
	for device, b := range s.held {
		if d, err := s.db.Device(device); b.until.After(s.clock) && (err != nil || d.State != cmdb.Held || d.Holder != b.owner) {
			s.fail("I10: %s believes to hold %s, which is %s by %q", b.owner, device, d.State, d.Holder)
		}
	}
}

func (s *sim) fail(format string, args ...any) {
	if s.fault == "" {
		s.fault = fmt.Sprintf(format, args...)
	}
}

func (s *sim) run(steps int) string {
	for range steps {
		s.act()
	}
	return s.fault
}

func seeds() uint64 {
	return uint64(seeded.Seeds(30))
}

// I10: no device is ever held by two, and none is lost.
func TestSimNoDeviceIsHeldTwice(t *testing.T) {
	t.Parallel()
	for seed := range seeds() {
		s, stop := newSim(t, seed, func(*cmdb.DB) {})
		fault := s.run(40)
		stop()
		if fault != "" {
			t.Fatalf("seed %d: %s\n%s", seed, fault, lines(s.story))
		}
	}
}

// I10: the simulation is worth something: a lost update is found within 100 seeds.
func TestSimFindsThePlantedBug(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		s, stop := newSim(t, seed, (*cmdb.DB).PlantBlindWrite)
		fault := s.run(40)
		stop()
		if fault != "" {
			t.Logf("found at seed %d: %s", seed, fault)
			return
		}
	}
	t.Error("100 seeds did not find the planted lost update")
}

func lines(story []string) string {
	var out string
	for _, line := range story[max(0, len(story)-25):] {
		out += line + "\n"
	}
	return out
}

// I10 under real concurrency, on two replicas of one store.
func TestConcurrentOwners(t *testing.T) {
	t.Parallel()
	store := memstore.New()
	dbs := []*cmdb.DB{open(t, store), open(t, store)}
	apply(t, dbs[0], cmdb.Dir("testdata/site"))
	var (
		mu   sync.Mutex
		held = map[string]string{}
		wait sync.WaitGroup
	)
	for w := range 6 {
		wait.Go(func() {
			db, owner := dbs[w%2], fmt.Sprintf("owner-%d", w)
			for i := range 15 {
				got, err := db.Acquire(t.Context(), cmdb.AcquireRequest{Owner: owner, Key: strconv.Itoa(i), Count: 1 + i%2})
				if errors.Is(err, cmdb.ErrNoDevice) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, d := range got {
					if other, taken := held[d.Name]; taken {
						t.Errorf("I10: %s is held by %s and %s", d.Name, other, owner)
					}
					held[d.Name] = owner
				}
				mu.Unlock()
				mu.Lock()
				for _, d := range got {
					delete(held, d.Name)
				}
				mu.Unlock()
				if released, err := db.Release(t.Context(), owner, names(got)); err != nil || !slices.Equal(released, names(got)) {
					t.Errorf("release %v: %v, %v", names(got), released, err)
				}
			}
		})
	}
	wait.Wait()
	if err := dbs[0].Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := dbs[0].Counts(); got[cmdb.Idle] != 4 {
		t.Errorf("I10: in the end all are idle: %v", got)
	}
}
