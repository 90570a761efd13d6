package gray_test

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/scripttest"
)

var update = flag.Bool("update", false, "write the outcomes of scripts to testdata")

// TestScripts runs testdata/*.txt against the pure core. A script is commands, each followed by its recorded
// outcome in lines that begin with ">". Times are since the start.
//
//	rollout new=a:8,b:8 [min=4] [policy=deck|default] [soak=60s]
//	step +1s [first] [shares=a:10,old:100|down] [seen=a:200/0/2,old:2000/3/9|down] [gap]
//	abort|promote|pause|resume
func TestScripts(t *testing.T) {
	t.Parallel()
	scripttest.Run(t, *update, func(t *testing.T, text string) string {
		s := script{start: time.Unix(0, 0).UTC()}
		s.now = s.start
		return scripttest.Lines(text, func(words []string) []string { return s.run(t, words) })
	})
}

type script struct {
	start, now time.Time
	r          gray.Rollout
}

// run carries out one command and describes what came of it.
func (s *script) run(t *testing.T, words []string) []string {
	t.Helper()
	options := scripttest.Settings(words[1:])
	var effect gray.Effect
	switch verb := words[0]; verb {
	case "rollout":
		r := gray.Rollout{ID: "r", Service: "shop.cart", Policy: gray.Deck()}
		if options["policy"] == "default" {
			r.Policy = gray.Default()
		}
		if soak, ok := options["soak"]; ok {
			r.Policy.Soak, _ = time.ParseDuration(soak)
		}
		r.MinCores, _ = strconv.Atoi(options["min"])
		for id, cores := range pairs(t, options["new"]) {
			r.New = append(r.New, gray.Member{ID: id, Cores: cores[0]})
		}
		slices.SortFunc(r.New, func(a, b gray.Member) int { return strings.Compare(a.ID, b.ID) })
		s.r = gray.Queue(s.now, r)
		return []string{fmt.Sprintf("%s, need %d requests a stage", s.r.Status.State, s.r.Policy.Need(s.r.New, s.r.MinCores))}
	case "step":
		d, err := time.ParseDuration(strings.TrimPrefix(words[1], "+"))
		if err != nil {
			t.Fatalf("%v: %v", words, err)
		}
		s.now = s.now.Add(d)
		s.r, effect = gray.Step(s.now, s.r, observe(t, s.r, options), "")
	default:
		var err error
		if s.r, effect, err = gray.Order(s.now, s.r, verb, "li", "told to"); err != nil {
			return []string{err.Error()}
		}
	}
	var out []string
	for _, e := range effect.Events {
		out = append(out, fmt.Sprintf("%v #%d %s -> %s %d%%: %s", s.now.Sub(s.start), e.Seq, e.From, e.To, e.Percent, e.Reason))
	}
	if effect.Set != nil {
		var shares []string
		for _, id := range slices.Sorted(maps.Keys(effect.Set)) {
			shares = append(shares, fmt.Sprintf("%s=%d", id, effect.Set[id]))
		}
		out = append(out, "set "+strings.Join(shares, " "))
	}
	return append(out, fmt.Sprintf("%s stage %d; %s", s.r.Status.State, s.r.Status.Stage, s.r.Status.Verdict))
}

// observe reads the options of a step.
func observe(t *testing.T, r gray.Rollout, options map[string]string) gray.Observation {
	t.Helper()
	_, first := options["first"]
	o := gray.Observation{First: first}
	if options["shares"] == "down" {
		o.SharesErr = "down"
	} else {
		o.Shares = make(map[string]int)
		for id, percent := range pairs(t, options["shares"]) {
			o.Shares[id] = percent[0]
		}
	}
	if options["seen"] == "down" {
		o.WindowErr = "down"
		return o
	}
	var members []gray.MemberOutcome
	for id, n := range pairs(t, options["seen"]) {
		m := gray.MemberOutcome{ID: id, Requests: int64(n[0]), Reports: 2}
		if len(n) > 1 {
			m.Failures = int64(n[1])
		}
		if len(n) > 2 {
			m.Reports = int64(n[2])
		}
		members = append(members, m)
	}
	o.Window = gray.Split(r, o.Shares, members)
	_, gap := options["gap"]
	o.Window.Complete = !gap
	return o
}

// pairs reads "a:1/2,b:3".
func pairs(t *testing.T, text string) map[string][]int {
	t.Helper()
	out := make(map[string][]int)
	for _, pair := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		id, list, _ := strings.Cut(pair, ":")
		for _, number := range strings.Split(list, "/") {
			n, err := strconv.Atoi(number)
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			out[id] = append(out[id], n)
		}
	}
	return out
}
