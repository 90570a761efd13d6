package flow

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// BenchmarkNodes runs the scheduler, with the encoding of what it stores, over 10,000 nodes and more: in flows of 100, which are different flows so
// that caches are as cold, and in one. ns/node is to stay as it is.
func BenchmarkNodes(b *testing.B) {
	for _, shape := range []struct {
		name  string
		write func(n int) string
	}{
		{"chain", func(n int) string {
			var s strings.Builder
			s.WriteString("flow: f\nsteps:\n")
			for i := range n {
				from := `"0"`
				if i > 0 {
					from = fmt.Sprintf(`"${steps.s%d.text}"`, i-1)
				}
				fmt.Fprintf(&s, "  - {name: s%d, tool: keyed, with: {from: %s}}\n", i, from)
			}
			return s.String()
		}},
		{"branches", func(n int) string {
			var s strings.Builder
			s.WriteString("flow: f\nsteps:\n  - name: all\n    branches:\n")
			for i := range n {
				fmt.Fprintf(&s, "      b%d: [{name: s%d, tool: keyed}]\n", i, i)
			}
			return s.String()
		}},
		{"signals", func(n int) string {
			var s strings.Builder
			s.WriteString("flow: f\nsteps:\n  - name: all\n    branches:\n")
			for i := range n {
				fmt.Fprintf(&s, "      b%d: [{name: s%d, signal: go%d}]\n", i, i, i)
			}
			return s.String()
		}},
		{"each", func(int) string {
			return "flow: f\nparams: {all: {type: list<int>, required: true}}\nsteps:\n  - {name: s, tool: keyed, each: params.all, parallel: 16, with: {n: \"${item}\"}}\n"
		}},
	} {
		for _, n := range []int{100, 10_000, 100_000} {
			if shape.name != "each" && n > 10_000 {
				continue
			}
			b.Run(fmt.Sprintf("%s/%d", shape.name, n), func(b *testing.B) {
				flows := make([]*program, max(1, 10_000/n))
				for i := range flows {
					var faults []Fault
					if flows[i], faults = compile([]byte(shape.write(n)), scriptTools()); len(faults) > 0 {
						b.Fatal(faults[0])
					}
				}
				all := make([]any, n)
				for i := range all {
					all[i] = int64(i)
				}
				b.ReportAllocs()
				for b.Loop() {
					for _, p := range flows {
						runNodes(b, p, all)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n*len(flows)), "ns/node")
			})
		}
	}
}

// runNodes ends every attempt with success, the oldest first, and sends the signals that are waited for.
func runNodes(b *testing.B, p *program, all []any) {
	x := newExecution(&p.Definition, "x")
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	m := &machine{p: p, x: x, now: at}
	e := Event{Kind: EventStarted, Flow: "f", Version: 1}
	if len(p.Params) > 0 {
		e.Params = map[string]any{"all": all}
	}
	m.emit(e)
	m.step(input{kind: inGo})
	queue := m.actions
	for i := range x.parked[waitSignal] {
		queue = append(queue, action{call: Call{Tool: "signal", Step: fmt.Sprint("go", i)}})
	}
	for prev := x.Seq; len(queue) > 0; prev = x.Seq {
		call := queue[0].call
		queue = queue[1:]
		m := &machine{p: p, x: x, now: at, events: m.events[:0]}
		in := input{kind: inEnded, step: call.Step, item: call.Item, attempt: call.Attempt, result: Result{Output: json.RawMessage(`{"text":"ok"}`)}}
		if call.Tool == "signal" {
			in = input{kind: inSignal, name: call.Step}
		}
		m.step(in)
		queue = append(queue, m.actions...)
		m.transition(prev)
	}
	if x.State != Done {
		b.Fatal(x.State)
	}
}
