package scale_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			s := script{start: time.Unix(1e9, 0).UTC()}
			s.now = s.start
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(line, ">") {
					continue
				}
				out.WriteString(line)
				if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
					continue
				}
				if outcome := s.run(t, strings.Fields(line)); outcome != "" {
					out.WriteString("> " + outcome + "\n")
				}
			}
			if *update {
				if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(text), out.String()); diff != "" {
				t.Errorf("outcome (-recorded +got); record it again with -update:\n%s", diff)
			}
		})
	}
}

type script struct {
	start, now time.Time
	m          scale.Module
	h          scale.History
}

// run carries out one command; what it returns is recorded.
func (s *script) run(t *testing.T, words []string) string {
	t.Helper()
	options := make(map[string]string)
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		options[key] = value
	}
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
		a := number(t, from)
		b := a
		if line {
			b = number(t, to)
		}
		seconds := int(duration(t, words[2]).Seconds())
		for i := range seconds {
			rate := a + (b-a)*float64(i+1)/float64(seconds)
			s.h = append(s.h, scale.Sample{At: s.now, Rate: rate, Lost: number(t, options["lost"]), Valid: true})
			s.now = s.now.Add(time.Second)
		}
	case "gap":
		for range int(duration(t, words[1]).Seconds()) {
			s.h = append(s.h, scale.Sample{At: s.now})
			s.now = s.now.Add(time.Second)
		}
	case "silence":
		s.now = s.now.Add(duration(t, words[1]))
	case "decide":
		d := scale.Decide(s.now, s.m, s.h)
		return fmt.Sprintf("%v have %d want %d (%+d) short %.4g keep %.4g: %s", s.now.Sub(s.start), d.Have, d.Want, d.Delta, d.Shortage, d.Keep, d.Reason)
	default:
		t.Fatalf("unknown command %v", words)
	}
	return ""
}

func (s *script) module(t *testing.T, options map[string]string) {
	t.Helper()
	s.m = scale.Module{Name: "shop.cart", Capacity: make(map[string]float64), Policy: s.m.Policy,
		LastOut: s.m.LastOut, LastIn: s.m.LastIn, LastFail: s.m.LastFail, Fails: s.m.Fails, Spent: s.m.Spent}
	s.m.Min, s.m.Max = int(number(t, options["min"])), int(number(t, options["max"]))
	s.m.Loss = number(t, options["loss"])
	_, s.m.Paused = options["paused"]
	for pair := range strings.SplitSeq(options["cap"], ",") {
		name, capacity, _ := strings.Cut(pair, ":")
		s.m.Capacity[name] = number(t, capacity)
	}
	share := 100
	if text, ok := options["share"]; ok {
		share = int(number(t, text))
	}
	s.m.Serving = devices(t, "d", options["serving"], share)
	s.m.Pending = devices(t, "p", options["pending"], 0)
	for i := range int(number(t, options["leaving"])) {
		s.m.Leaving = append(s.m.Leaving, s.m.Serving[i].Name)
	}
}

// devices reads "s*3,l*1".
func devices(t *testing.T, prefix, text string, share int) []scale.Device {
	t.Helper()
	var out []scale.Device
	for part := range strings.SplitSeq(text, ",") {
		name, count, _ := strings.Cut(part, "*")
		for range int(number(t, count)) {
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
			p.ReactWithin = duration(t, value)
		case "stale":
			p.StaleAfter = duration(t, value)
		case "inafter":
			p.InAfter = duration(t, value)
		case "cooldown":
			p.Cooldown = duration(t, value)
		case "cooldownin":
			p.CooldownIn = duration(t, value)
		case "window":
			p.Window, p.NoForecast = duration(t, value), false
		case "lead":
			p.Lead = duration(t, value)
		case "target":
			p.Target = number(t, value)
		case "high":
			p.High = number(t, value)
		case "outstep":
			p.OutStep = int(number(t, value))
		case "instep":
			p.InStep = int(number(t, value))
		case "perhour":
			p.PerHour = int(number(t, value))
		case "spent":
			s.m.Spent = int(number(t, value))
		default:
			t.Fatalf("unknown option %q", key)
		}
	}
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	if text == "" {
		return 0
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
