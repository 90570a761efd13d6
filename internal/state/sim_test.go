package state_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/state"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// sim runs replicas over one store, by a seed: rows are written, applies are staged, published and written out a
// commit at a time, replicas fall behind, and are made anew from a listing. After each step:
//
//	I8: no replica reports a row's revision twice, or out of order.
//	I9: a replica that followed equals one that was made from a listing at the same revision.
func sim(seed uint64, bug string) error {
	random := rand.New(rand.NewPCG(seed, 7))
	w := newTables()
	memory := store.NewMemory()
	s := &simulation{random: random, store: memory, w: w, bug: bug}
	for range 2 {
		s.replicas = append(s.replicas, state.NewReplica(bug, w.devices, w.modules))
	}
	s.seen = make([]int64, len(s.replicas))
	for range 120 {
		if err := s.step(); err != nil {
			return fmt.Errorf("seed %d: %w", seed, err)
		}
	}
	return nil
}

type simulation struct {
	random   *rand.Rand
	store    *store.Memory
	w        *world
	bug      string
	log      []store.Event // everything that was committed
	replicas []*state.Replica
	seen     []int64 // revision that each replica has reached
	stages   int
}

// commit tries to commit, and notes the event.
func (s *simulation) commit(ops ...store.Op) error {
	_, before, err := s.store.List(context.Background(), "")
	if err != nil {
		return err
	}
	revision, err := s.store.Commit(context.Background(), ops...)
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	if err != nil || revision == before {
		return err
	}
	for event, err := range s.store.Watch(context.Background(), "", before) {
		if err != nil {
			return err
		}
		s.log = append(s.log, event)
		return nil
	}
	return nil
}

func (s *simulation) key() string { return fmt.Sprint("d", s.random.IntN(5)) }

func (s *simulation) value(key string) string {
	return fmt.Sprintf(`{"name":%q,"module":"m%d","load":%d}`, key, s.random.IntN(2), s.random.IntN(1000))
}

func (s *simulation) step() error {
	i := s.random.IntN(len(s.replicas))
	writer := s.replicas[i]
	switch s.random.IntN(10) {
	case 0, 1, 2: // a plain writer, with what its replica knows; it waits while a generation is open
		guard, open := writer.Guard()
		if open {
			return s.fold()
		}
		key := s.key()
		at := writer.Record("device", key)
		op := store.Put("device/"+key, []byte(s.value(key))).At(at)
		if s.random.IntN(4) == 0 {
			op = store.Delete("device/" + key).At(at)
		}
		if err := s.commit(op, store.Check(".generation", guard)); err != nil {
			return err
		}
	case 3: // a stager, with what its replica knows
		guard, open := writer.Guard()
		if open {
			return s.fold()
		}
		s.stages++
		rows := make(map[string][3]string)
		for range 1 + s.random.IntN(4) {
			key := s.key()
			rows[key] = [3]string{"device", []string{"put", "put", "delete", "check"}[s.random.IntN(4)], s.value(key)}
		}
		id := fmt.Sprint("g", s.stages)
		chunks, publish := state.StageOps(id, guard, rows, func(key string) int64 { return writer.Record("device", key) })
		for _, c := range chunks {
			if err := s.commit(c...); err != nil {
				return err
			}
		}
		if err := s.commit(publish...); err != nil {
			return err
		}
	case 4, 5:
		return s.fold()
	case 6: // a replica starts over from a listing
		records, revision, err := s.store.List(context.Background(), "")
		if err != nil {
			return err
		}
		writer.Load(records, revision)
		s.seen[i] = revision
	default: // a replica catches up, some of the way
		if err := s.follow(i, 1+s.random.IntN(6)); err != nil {
			return err
		}
	}
	return s.compare(i)
}

// follow feeds a replica up to n commits.
func (s *simulation) follow(i, n int) error {
	for _, event := range s.log {
		if event.Revision <= s.seen[i] || n == 0 {
			continue
		}
		n--
		s.seen[i] = event.Revision
		changes := s.replicas[i].Apply(event)
		for _, c := range changes {
			if !s.wrote(event, c.Key) {
				return fmt.Errorf("I8: the commit %d reports a change of %s that it did not make", event.Revision, c.Key)
			}
		}
	}
	return nil
}

// wrote reports whether a reader may see a change of the row at this commit: it was written plainly, or published.
func (s *simulation) wrote(event store.Event, key string) bool {
	if slices.Contains(event.Deletes, "device/"+key) {
		return true
	}
	for _, p := range event.Puts {
		if p.Key == ".generation" || p.Key == "device/"+key && p.Value[0] != 1 {
			return true
		}
	}
	return false
}

// fold advances the open generation by one commit, as the replica that has seen everything would.
func (s *simulation) fold() error {
	if err := s.follow(0, len(s.log)); err != nil {
		return err
	}
	ops := s.replicas[0].FoldOps()
	guard, open := s.replicas[0].Guard()
	if !open {
		return nil
	}
	for n := range ops { // from the start again: what is done already fails or changes nothing
		if n == len(ops)-1 || s.random.IntN(3) > 0 || n == 0 {
			if err := s.commit(ops[n](guard)...); err != nil {
				return err
			}
			if err := s.follow(0, len(s.log)); err != nil {
				return err
			}
			if guard, open = s.replicas[0].Guard(); !open {
				break
			}
			if err := s.compare(0); err != nil {
				return err
			}
			continue
		}
		return nil // the folder dies here
	}
	return s.compare(0)
}

// compare holds a replica that followed against one that lists, and one that replays from the beginning. I9.
func (s *simulation) compare(i int) error {
	if err := s.follow(i, len(s.log)); err != nil {
		return err
	}
	records, revision, err := s.store.List(context.Background(), "")
	if err != nil {
		return err
	}
	listing := state.NewReplica("", s.w.devices, s.w.modules)
	listing.Load(records, revision)
	want := listing.Rows(s.show)
	if got := s.replicas[i].Rows(s.show); !slices.Equal(want, got) {
		return fmt.Errorf("I9: at %d, replica %d differs from a listing (-listing +replica):\n%s", revision, i, cmp.Diff(want, got))
	}
	for _, m := range []string{"m0", "m1"} {
		if a, b := rows(s.w.devices.By(listing.Snapshot(), "module", m)), rows(s.w.devices.By(s.replicas[i].Snapshot(), "module", m)); !slices.Equal(a, b) {
			return fmt.Errorf("I9: at %d, the index of %s is %q, of a listing %q", revision, m, b, a)
		}
	}
	if s.random.IntN(10) > 0 {
		return nil
	}
	replay := state.NewReplica("", s.w.devices, s.w.modules)
	for _, event := range s.log {
		replay.Apply(event)
	}
	if got := replay.Rows(s.show); !slices.Equal(want, got) {
		return fmt.Errorf("I9: at %d, the replay differs from a listing (-listing +replay):\n%s", revision, cmp.Diff(want, got))
	}
	return nil
}

func (s *simulation) show(v any) string { return fmt.Sprintf("%+v", *v.(*device)) }

func seeds(t testing.TB) uint64 {
	if n, err := strconv.ParseUint(os.Getenv("ZHIYUN_SEEDS"), 10, 64); err == nil {
		return n
	}
	return 100
}

func TestSimReplicas(t *testing.T) {
	t.Parallel()
	for seed := range seeds(t) {
		if err := sim(seed, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// Each planted bug is found within 100 seeds: the simulation can fail.
func TestSimFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, bug := range []string{"every generation is valid", "a row written out is a change", "a listing removes nothing"} {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(100) {
				if err := sim(seed, bug); err != nil {
					t.Logf("found by seed %d: %.300v", seed, err)
					return
				}
			}
			t.Error("not found within 100 seeds")
		})
	}
}
