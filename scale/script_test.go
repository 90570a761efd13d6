package scale_test

import (
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/scripttest"
	"github.com/zhiyun-ops/zhiyun/scale"
)

var update = flag.Bool("update", false, "write the outcomes of scripts to testdata")

// TestScripts runs testdata/*.txt against Decide. A script is commands, each followed by its recorded outcome in
// lines that begin with ">". Buckets are seconds.
//
//	module min=3 max=12 cap=s:100,l:300 serving=s*3,l*1 [pending=s*2] [leaving=1] [share=50] [paused] [loss=0.01]
//	policy react=3s stale=5s target=0.7 high=0.85 inafter=10s cooldown=5s cooldownin=5s ...
//	did out|in|fail     an order was given, or failed, now
//	load 200[-600] 10s [lost=5]   so much load for so long, in a straight line
//	gap 10s             buckets that are not valid
//	silence 10s         no buckets at all
//	decide
func TestScripts(t *testing.T) {
	t.Parallel()
	scripttest.Run(t, *update, func(t *testing.T, text string) string {
		s := script{start: time.Unix(1e9, 0).UTC()}
		s.now = s.start
		return scripttest.Lines(text, func(words []string) []string { return s.run(t, words) })
	})
}

type script struct {
	start, now time.Time
	m          scale.Module
	h          scale.History
}

// run carries out one command; what it returns is recorded.
func (s *script) run(t *testing.T, words []string) []string {
	t.Helper()
	options := scripttest.Settings(words[1:])
	switch words[0] {
	case "module":
		s.module(t, options)
	case "policy":
		s.policy(t, options)
	case "did":
		switch words[1] {
		case "out":
			s.m.LastOut = s.now
		case "in":
			s.m.LastIn = s.now
		case "fail":
			s.m.LastFail = s.now
			s.m.Fails++
		}
	case "load":
		from, to, line := strings.Cut(words[1], "-")
		a := scripttest.Number(t, from)
		b := a
		if line {
			b = scripttest.Number(t, to)
		}
		seconds := int(scripttest.Duration(t, words[2]).Seconds())
		for i := range seconds {
			rate := a + (b-a)*float64(i+1)/float64(seconds)
			s.h = append(s.h, scale.Sample{At: s.now, Rate: rate, Lost: scripttest.Number(t, options["lost"]), Valid: true})
			s.now = s.now.Add(time.Second)
		}
	case "gap":
		for range int(scripttest.Duration(t, words[1]).Seconds()) {
			s.h = append(s.h, scale.Sample{At: s.now})
			s.now = s.now.Add(time.Second)
		}
	case "silence":
		s.now = s.now.Add(scripttest.Duration(t, words[1]))
	case "decide":
		d := scale.Decide(s.now, s.m, s.h)
		return []string{fmt.Sprintf("%v have %d want %d (%+d) short %.4g keep %.4g: %s", s.now.Sub(s.start), d.Have, d.Want, d.Delta, d.Shortage, d.Keep, d.Reason)}
	default:
		t.Fatalf("unknown command %v", words)
	}
	return nil
}

func (s *script) module(t *testing.T, options map[string]string) {
	t.Helper()
	s.m = scale.Module{Name: "shop.cart", Capacity: make(map[string]float64), Policy: s.m.Policy,
		LastOut: s.m.LastOut, LastIn: s.m.LastIn, LastFail: s.m.LastFail, Fails: s.m.Fails, Spent: s.m.Spent}
	s.m.Min, s.m.Max = int(scripttest.Number(t, options["min"])), int(scripttest.Number(t, options["max"]))
	s.m.Loss = scripttest.Number(t, options["loss"])
	_, s.m.Paused = options["paused"]
	for pair := range strings.SplitSeq(options["cap"], ",") {
		name, capacity, _ := strings.Cut(pair, ":")
		s.m.Capacity[name] = scripttest.Number(t, capacity)
	}
	share := 100
	if text, ok := options["share"]; ok {
		share = int(scripttest.Number(t, text))
	}
	s.m.Serving = devices(t, "d", options["serving"], share)
	s.m.Pending = devices(t, "p", options["pending"], 0)
	for i := range int(scripttest.Number(t, options["leaving"])) {
		s.m.Leaving = append(s.m.Leaving, s.m.Serving[i].Name)
	}
}

// devices reads "s*3,l*1".
func devices(t *testing.T, prefix, text string, share int) []scale.Device {
	t.Helper()
	var out []scale.Device
	for part := range strings.SplitSeq(text, ",") {
		name, count, _ := strings.Cut(part, "*")
		for range int(scripttest.Number(t, count)) {
			out = append(out, scale.Device{Name: prefix + strconv.Itoa(len(out)), Type: name, Site: "sz1", City: "sz", Share: share})
		}
	}
	return out
}

func (s *script) policy(t *testing.T, options map[string]string) {
	t.Helper()
	p := &s.m.Policy
	*p = scale.Policy{NoForecast: true}
	for key, value := range options {
		switch key {
		case "react":
			p.ReactWithin = scripttest.Duration(t, value)
		case "stale":
			p.StaleAfter = scripttest.Duration(t, value)
		case "inafter":
			p.InAfter = scripttest.Duration(t, value)
		case "cooldown":
			p.Cooldown = scripttest.Duration(t, value)
		case "cooldownin":
			p.CooldownIn = scripttest.Duration(t, value)
		case "window":
			p.Window, p.NoForecast = scripttest.Duration(t, value), false
		case "lead":
			p.Lead = scripttest.Duration(t, value)
		case "target":
			p.Target = scripttest.Number(t, value)
		case "high":
			p.High = scripttest.Number(t, value)
		case "outstep":
			p.OutStep = int(scripttest.Number(t, value))
		case "instep":
			p.InStep = int(scripttest.Number(t, value))
		case "perhour":
			p.PerHour = int(scripttest.Number(t, value))
		case "spent":
			s.m.Spent = int(scripttest.Number(t, value))
		default:
			t.Fatalf("unknown option %q", key)
		}
	}
}
