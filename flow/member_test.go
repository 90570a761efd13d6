package flow

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Each line is a moment after the beginning and what the member is told; what it does next stands behind the arrow.
func TestMembership(t *testing.T) {
	t.Parallel()
	away := errors.New("away")
	begin := time.Unix(1_000_000, 0)
	var s *membership
	at := func(d time.Duration) time.Time { return begin.Add(d) }
	const beat = 2 * time.Second
	type line struct {
		at   time.Duration
		what string
		tell func(now time.Time)
		want string
	}
	beaten := func(b Beat, err error) func(time.Time) {
		return func(now time.Time) { s.beaten(now.Add(-10*time.Millisecond), now, b, err) }
	}
	joined := func(n int64, err error) func(time.Time) { return func(now time.Time) { s.joined(now, n, err) } }
	claimed := func(n int, err error) func(time.Time) { return func(now time.Time) { s.claimed(now, n, 128, err) } }
	for name, script := range map[string][]line{
		"joins, beats, leads": {
			{0, "", nil, "join"},
			{0, "joined", joined(1, nil), "beat"},
			{10 * time.Millisecond, "alone", beaten(Beat{Members: 1, Lead: true}, nil), "wait 1.99s, leads"},
			{2 * time.Second, "", nil, "beat, leads"},
			{5 * time.Second, "its lease is over by its own clock", nil, "beat"},
		},
		"looks when the lease of another runs out": {
			{0, "joined", joined(2, nil), "beat"},
			{0, "another is silent", beaten(Beat{Members: 2, Next: 700 * time.Millisecond}, nil), "wait 700ms"},
			{700 * time.Millisecond, "", nil, "beat"},
			{700 * time.Millisecond, "it was just writing", beaten(Beat{Members: 2, Next: time.Microsecond}, nil), "wait 100ms"},
			{800 * time.Millisecond, "removed", beaten(Beat{Members: 1, Orphans: true, Removed: []int64{1}}, nil), "claim"},
		},
		"claims until nothing is left": {
			{0, "joined", joined(2, nil), "beat"},
			{0, "orphans", beaten(Beat{Orphans: true}, nil), "claim"},
			{0, "a whole batch", claimed(128, nil), "wait 1.99s"},
			{0, "taken up", func(time.Time) { s.adopted() }, "claim"},
			{0, "the rest", claimed(5, nil), "wait 1.99s"},
			{0, "taken up", func(time.Time) { s.adopted() }, "wait 1.99s"},
			{0, "orphans", beaten(Beat{Orphans: true}, nil), "claim"},
			{0, "others were faster", claimed(0, nil), "wait 1.99s"},
		},
		"a poke brings the next beat, unless the store is away": {
			{0, "joined", joined(2, nil), "beat"},
			{0, "nothing", beaten(Beat{}, nil), "wait 1.99s"},
			{0, "poke", func(now time.Time) { s.wake(now) }, "beat"},
			{0, "away", beaten(Beat{}, away), "wait 200ms"},
			{0, "poke", func(now time.Time) { s.wake(now) }, "wait 200ms"},
			{200 * time.Millisecond, "", nil, "beat"},
			{200 * time.Millisecond, "away", beaten(Beat{}, away), "wait 400ms"},
			{600 * time.Millisecond, "away", beaten(Beat{}, away), "wait 800ms"},
			{1400 * time.Millisecond, "away", beaten(Beat{}, away), "wait 1s"},
			{2400 * time.Millisecond, "away", beaten(Beat{}, away), "wait 1s"},
			{3400 * time.Millisecond, "back", beaten(Beat{Lead: true}, nil), "wait 1.99s, leads"},
		},
		"fenced by a beat": {
			{0, "joined", joined(2, nil), "beat"},
			{0, "leads", beaten(Beat{Lead: true, Orphans: true}, nil), "claim, leads"},
			{time.Second, "fenced", beaten(Beat{}, fmt.Errorf("beat: %w", ErrFenced)), "drop"},
			{time.Second, "dropped", func(now time.Time) { s.dropped(now) }, "join"},
			{time.Second, "joined", joined(3, nil), "beat"},
		},
		"fenced by a commit": {
			{0, "joined", joined(2, nil), "beat"},
			{0, "well", beaten(Beat{}, nil), "wait 1.99s"},
			{0, "an older life's commit", func(time.Time) { s.lost(1, ErrFenced) }, "wait 1.99s"},
			{0, "a commit without an owner", func(time.Time) { s.lost(0, ErrFenced) }, "wait 1.99s"},
			{0, "its own", func(time.Time) { s.lost(2, ErrFenced) }, "drop"},
		},
		"fenced by a claim": {
			{0, "joined", joined(2, nil), "beat"},
			{0, "orphans", beaten(Beat{Orphans: true}, nil), "claim"},
			{0, "away", claimed(0, away), "wait 200ms"},
			{0, "fenced", claimed(0, ErrFenced), "drop"},
		},
		"draining": {
			{0, "joined", joined(2, nil), "beat"},
			{0, "drains", func(time.Time) { s.draining = true }, "beat"},
			{0, "orphans", beaten(Beat{Orphans: true}, nil), "wait 1.99s"},
			{0, "fenced", func(time.Time) { s.lost(2, ErrFenced) }, "drop"},
			{0, "dropped", func(now time.Time) { s.dropped(now) }, "wait 2s"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s = &membership{heartbeat: beat}
			for i, l := range script {
				if l.tell != nil {
					l.tell(at(l.at))
				}
				do, wait := s.decide(at(l.at))
				got := []string{"wait", "join", "beat", "claim", "drop"}[do]
				if do == doWait {
					got += " " + wait.String()
				}
				if s.leads(at(l.at)) {
					got += ", leads"
				}
				if got != l.want {
					t.Fatalf("line %d, %s after %s: %s, want %s", i, l.what, l.at, got, l.want)
				}
			}
		})
	}
}

// An input that travels as a letter arrives with every field that it has.
func TestInputSurvivesALetter(t *testing.T) {
	t.Parallel()
	var in input
	fill(t, reflect.ValueOf(&in).Elem(), "input")
	body, err := encodeInput(in)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeInput(body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, got, cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
		t.Errorf("a field is lost on the way; give it its twin in letterBody (-sent +received):\n%s", diff)
	}
	if _, err := decodeInput([]byte("{")); err == nil {
		t.Error("half a letter is read")
	}
}

// fill sets every field, unexported ones included, to something else than zero.
func fill(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	v = reflect.NewAt(v.Type(), v.Addr().UnsafePointer()).Elem()
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)))
		return
	case v.Type() == reflect.TypeFor[json.RawMessage]():
		v.Set(reflect.ValueOf(json.RawMessage(`{"a":1}`)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(path)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint8:
		v.SetUint(7)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), path)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type() == reflect.TypeFor[input]() && slices.Contains([]string{"grant", "program"}, v.Type().Field(i).Name) {
				continue // of this engine's own admission, and of its own programs: the version travels
			}
			fill(t, v.Field(i), path+"."+v.Type().Field(i).Name)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0), path)
	default:
		t.Fatalf("%s is a %s: teach this test to fill it, and letterBody to carry it", path, v.Kind())
	}
}

// Errors that callers tell apart are the same on the other side.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, err := range []error{nil, fmt.Errorf("%w: it is done", ErrState), fmt.Errorf("%w: no", ErrInvalid), fmt.Errorf("%w: nobody", ErrNotFound), fmt.Errorf("%w: bob", ErrNotAsked), errors.New("line 1\nline 2")} {
		got := parseAnswer(answerText(err))
		if (err == nil) != (got == nil) || err != nil && got.Error() != err.Error() {
			t.Errorf("%v became %v", err, got)
		}
		for _, fate := range []error{ErrState, ErrInvalid, ErrNotFound} {
			if errors.Is(err, fate) != errors.Is(got, fate) {
				t.Errorf("%v: it is %v before and not after, or the other way round", err, fate)
			}
		}
	}
}

// A letter that is in hand is not handed in twice, whatever a beat lists; one that could not be handed in comes again.
func TestLettersInHand(t *testing.T) {
	t.Parallel()
	k := &letters{known: map[int64]bool{}}
	list := func(ids ...int64) (out []Letter) {
		for _, id := range ids {
			out = append(out, Letter{ID: id})
		}
		return out
	}
	for i, one := range []struct {
		listed, want string
		again        int64
	}{{"1 2", "1 2", 0}, {"1 2 3", "3", 0}, {"2 3", "", 2}, {"2 3", "2", 0}, {"", "", 0}, {"4", "4", 0}} {
		var ids []int64
		for _, word := range strings.Fields(one.listed) {
			ids = append(ids, int64(word[0]-'0'))
		}
		var got []string
		for _, l := range k.fresh(list(ids...)) {
			got = append(got, fmt.Sprint(l.ID))
		}
		if strings.Join(got, " ") != one.want {
			t.Errorf("beat %d: %v, want %q", i, got, one.want)
		}
		if one.again != 0 {
			k.again(one.again)
		}
	}
	full := make([]Letter, maxLetters)
	for i := range full {
		full[i].ID = int64(100 + i)
	}
	k.fresh(full)
	if got := k.fresh(slices.Concat(list(5), full[1:])); len(got) != 1 || len(k.fresh(full)) != 0 {
		t.Error("a letter that a full list had no room for is handed in again")
	}
}
