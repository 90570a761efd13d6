package flow

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// lockWorld has families of executions take locks, at most three times each, and end.
type lockWorld struct {
	locks   *locks
	waiting []*keyTicket
	asked   map[string]int
	holds   map[string][]string // what each has been told that it holds
}

func playLocks(t *rapid.T, planted string) (err error) {
	w := &lockWorld{locks: newLocks(), asked: map[string]int{}, holds: map[string][]string{}}
	w.locks.planted = planted
	keys := []string{"device/1", "device/2", "module/a", "module/b"}
	names := []string{"x", "y", "z"}
	granted := func() error {
		for len(w.locks.granted) > 0 {
			all := w.locks.granted
			w.locks.granted = nil
			for _, k := range all {
				w.waiting = slices.DeleteFunc(w.waiting, func(other *keyTicket) bool { return other == k })
				if k.gone { // it asks again
					again := &keyTicket{holder: k.holder, keys: k.keys}
					if err := w.ask(again); err != nil {
						return err
					}
					continue
				}
				w.holds[k.holder] = append(w.holds[k.holder], k.keys...)
			}
		}
		return w.meet()
	}
	end := func(name string) error {
		for _, k := range slices.Clone(w.waiting) {
			if k.holder == name {
				w.waiting = slices.DeleteFunc(w.waiting, func(other *keyTicket) bool { return other == k })
				w.locks.withdraw(admitEpoch, k)
			}
		}
		delete(w.holds, name)
		w.locks.releaseAll(admitEpoch, name)
		w.asked[name] = 0
		return granted()
	}
	for range rapid.IntRange(1, 40).Draw(t, "steps") {
		name := rapid.SampledFrom(names).Draw(t, "who")
		if w.asked[name] < 3 && rapid.IntRange(0, 3).Draw(t, "what") > 0 {
			w.asked[name]++
			err = w.ask(&keyTicket{holder: name, keys: rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 1, 2, rapid.ID).Draw(t, "keys")})
		} else if !slices.ContainsFunc(w.waiting, func(k *keyTicket) bool { return k.holder == name }) {
			err = end(name) // one that waits does not end by itself
		}
		if err == nil {
			err = granted()
		}
		if err != nil {
			return err
		}
	}
	// Whoever does not wait ends in the end; then everybody gets what it waits for.
	for range 20 {
		for _, name := range names {
			if !slices.ContainsFunc(w.waiting, func(k *keyTicket) bool { return k.holder == name }) {
				if err := end(name); err != nil {
					return err
				}
			}
		}
	}
	if len(w.waiting) > 0 {
		return fmt.Errorf("%s waits for ever for %v", w.waiting[0].holder, w.waiting[0].keys)
	}
	if len(w.locks.keys)+len(w.locks.holders) > 0 {
		return fmt.Errorf("%d keys and %d holders are remembered", len(w.locks.keys), len(w.locks.holders))
	}
	return nil
}

func (w *lockWorld) ask(k *keyTicket) error {
	blocked, refused := w.locks.ask(admitEpoch, k)
	switch {
	case blocked == nil:
		w.holds[k.holder] = append(w.holds[k.holder], k.keys...)
	case !refused:
		w.waiting = append(w.waiting, k)
	}
	return w.meet()
}

// meet looks for a key that two hold.
func (w *lockWorld) meet() error {
	by := map[string]string{}
	for name, keys := range w.holds {
		for _, key := range keys {
			if other, found := by[key]; found && other != name {
				return fmt.Errorf("%s and %s meet on %s", name, other, key)
			}
			by[key] = name
		}
	}
	return nil
}

// Two never meet on a key, and none waits for ever.
func TestLocksProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		if err := playLocks(t, ""); err != nil {
			t.Fatal(err)
		}
	})
}

// What checks locks finds planted bugs within 100 runs.
func TestLocksFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, planted := range []string{"ignore holders", "wait in any order"} {
		found := 0
		for seed := range 100 {
			if err := rapid.Custom(func(t *rapid.T) error { return playLocks(t, planted) }).Example(seed); err != nil {
				found++
				if found == 1 {
					t.Logf("%s: found with seed %d: %v", planted, seed, err)
				}
			}
		}
		if found == 0 {
			t.Errorf("%s: not found within 100 seeds", planted)
		}
	}
}

// A key goes to who has waited for it longest, and who has waited for several has not lost its place.
func TestLocksKeepTheirOrder(t *testing.T) {
	t.Parallel()
	l := newLocks()
	ask := func(name string, keys ...string) *keyTicket {
		k := &keyTicket{holder: name, keys: keys}
		l.ask(admitEpoch, k)
		return k
	}
	ask("a", "1")
	ask("b", "2")
	both := ask("both", "2", "1")
	late := ask("late", "1")
	l.release(admitEpoch, "a", "1")
	if len(l.granted) > 0 {
		t.Fatal("somebody has overtaken", l.granted[0].holder)
	}
	l.release(admitEpoch, "b", "2")
	if len(l.granted) != 1 || l.granted[0] != both {
		t.Fatal(l.granted)
	}
	l.releaseAll(admitEpoch, "both")
	if len(l.granted) != 2 || l.granted[1] != late {
		t.Error(l.granted)
	}
}
