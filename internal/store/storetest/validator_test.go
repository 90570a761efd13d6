package storetest

import (
	"math"
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// A validator that cannot fail proves nothing: each broken story must be found.
func TestValidatorFindsEachViolation(t *testing.T) {
	t.Parallel()
	record := func(key, value string, revision int64) store.Record {
		return store.Record{Key: key, Value: []byte(value), Revision: revision}
	}
	journal := NewJournal(nil)
	journal.acked[2] = [][]store.Op{{put("a", "2"), put("b", "2")}}
	journal.acked[3] = [][]store.Op{{put("a", "3"), store.Delete("b")}, {store.Delete("never there")}}
	journal.unknown = [][]store.Op{{put("c", "4"), put("d", "4")}}
	second := store.Event{Revision: 2, Puts: []store.Record{record("a", "2", 2), record("b", "2", 2)}}
	third := store.Event{Revision: 3, Puts: []store.Record{record("a", "3", 3)}, Deletes: []string{"b"}}
	for name, c := range map[string]struct {
		events []store.Event
		good   bool
	}{
		"as it was":                  {[]store.Event{second, third}, true},
		"with what was not answered": {[]store.Event{second, third, {Revision: 4, Puts: []store.Record{record("c", "4", 4), record("d", "4", 4)}}}, true},
		"half of what was not":       {[]store.Event{second, third, {Revision: 4, Puts: []store.Record{record("c", "4", 4)}}}, false},
		"lost":                       {[]store.Event{third}, false},
		"twice":                      {[]store.Event{second, second, third}, false},
		"out of order":               {[]store.Event{third, second}, false},
		"split":                      {[]store.Event{{Revision: 2, Puts: second.Puts[:1]}, {Revision: 2, Puts: second.Puts[1:]}, third}, false},
		"half":                       {[]store.Event{{Revision: 2, Puts: second.Puts[:1]}, third}, false},
		"another value":              {[]store.Event{second, {Revision: 3, Puts: []store.Record{record("a", "9", 3)}, Deletes: []string{"b"}}}, false},
		"empty":                      {[]store.Event{second, third, {Revision: 4}}, false},
		"of another revision":        {[]store.Event{second, {Revision: 3, Puts: []store.Record{record("a", "3", 2)}, Deletes: []string{"b"}}}, false},
		"nobody asked":               {[]store.Event{second, third, {Revision: 5, Puts: []store.Record{record("e", "5", 5)}}}, false},
		"not in key order":           {[]store.Event{{Revision: 2, Puts: []store.Record{second.Puts[1], second.Puts[0]}}, third}, false},
	} {
		faults := append(validate(1, c.events), journal.compare("", 1, c.events)...)
		if c.good != (len(faults) == 0) {
			t.Errorf("%s: found %v", name, faults)
		}
	}
}

func TestRegistersFindEachViolation(t *testing.T) {
	t.Parallel()
	write := func(at int64, value string, out casResult, call, back int64) porcupine.Operation {
		return porcupine.Operation{Input: cas{key: "r", write: true, value: value, at: at}, Output: out, Call: call, Return: back}
	}
	read := func(value string, revision, call, back int64) porcupine.Operation {
		return porcupine.Operation{Input: cas{key: "r"}, Output: casResult{ok: true, value: value, revision: revision}, Call: call, Return: back}
	}
	ok := func(revision int64) casResult { return casResult{ok: true, revision: revision} }
	refused := func(have int64) casResult { return casResult{revision: have} }
	unknown := casResult{unknown: true}
	for name, c := range map[string]struct {
		history []porcupine.Operation
		good    bool
	}{
		"in order":                  {[]porcupine.Operation{write(0, "a", ok(1), 1, 2), read("a", 1, 3, 4), write(1, "b", ok(2), 5, 6), read("b", 2, 7, 8)}, true},
		"stale read":                {[]porcupine.Operation{write(0, "a", ok(1), 1, 2), write(1, "b", ok(2), 3, 4), read("a", 1, 5, 6)}, false},
		"lost write":                {[]porcupine.Operation{write(0, "a", ok(1), 1, 2), read("", 0, 3, 4)}, false},
		"both win":                  {[]porcupine.Operation{write(0, "a", ok(1), 1, 4), write(0, "b", ok(2), 2, 3)}, false},
		"refused without a reason":  {[]porcupine.Operation{write(0, "a", refused(0), 1, 2)}, false},
		"refused by the other":      {[]porcupine.Operation{write(0, "a", ok(1), 1, 4), write(0, "b", refused(1), 2, 3)}, true},
		"no answer, and happened":   {[]porcupine.Operation{write(0, "a", unknown, 1, math.MaxInt64), read("a", 1, 3, 4)}, true},
		"no answer, and did not":    {[]porcupine.Operation{write(0, "a", unknown, 1, math.MaxInt64), read("", 0, 3, 4)}, true},
		"no answer, and went again": {[]porcupine.Operation{write(0, "a", unknown, 1, math.MaxInt64), read("a", 1, 3, 4), read("", 0, 5, 6)}, false},
		"revisions run backwards":   {[]porcupine.Operation{write(0, "a", ok(5), 1, 2), write(5, "b", ok(4), 3, 4)}, false},
	} {
		model := registerModel()
		if got := porcupine.CheckOperations(model.ToModel(), c.history); got != c.good {
			t.Errorf("%s: linearizable is %v, want %v", name, got, c.good)
		}
	}
}
