package flow_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// others are the flows that the steps below call.
var others = map[string]string{
	"other":   "flow: other\nparams: {n: {type: int, required: true, min: 1}, names: \"list<string>\"}\noutput: {ip: \"${steps.a.devices[0].name}\", n: 3}\nsteps: [{name: a, tool: acquire, with: {module: x}}]",
	"other@1": "flow: other\nparams: {m: int}\nsteps: [{name: a, tool: free}]",
	"back":    "flow: back\nsteps: [{name: a, flow: round}]",
	"round":   "flow: round\nsteps: [{name: a, flow: f}]",
}

var goodBlocks = []string{
	`{name: a, if: params.n > 1, then: [{name: b, tool: acquire, with: {module: x}}], else: [{name: c, tool: free}]}`,
	`{name: a, if: "${params.n > 1}", when: "params.module != ''", then: [{name: b, tool: acquire, with: {module: x}}, {name: c, tool: free, with: {of: "${steps.b.devices}"}}]}`,
	`{name: a, switch: [{when: params.n > 1, steps: [{name: b, tool: free}]}, {when: params.n < 0, steps: [{name: c, tool: free}]}], else: [{name: d, notify: {text: none}}]}`,
	`{name: a, branches: {left: [{name: b, tool: acquire, with: {module: x}}], right: [{name: c, tool: free}]}}`,
	// Behind branches all of their steps have run.
	`{name: a, branches: {left: [{name: b, tool: acquire, with: {module: x}}], right: [{name: c, tool: free}]}}, {name: d, tool: free, with: {of: "${steps.b.devices}"}}`,
	// Behind a choice a step has to ask, in whichever form.
	`{name: a, if: params.n > 1, then: [{name: b, tool: acquire, with: {module: x}}]}, {name: d, tool: free, with: {of: "${has(steps.b) ? steps.b.devices : []}"}}`,
	`{name: a, if: params.n > 1, then: [{name: b, tool: acquire, with: {module: x}}]}, {name: d, when: has(steps.b), tool: free, with: {of: "${steps.b.devices}"}}`,
	`{name: a, if: params.n > 1, then: [{name: b, tool: acquire, with: {module: x}}]}, {name: d, when: "has(steps.b) && steps.b.devices.size() > 1", tool: free}`,
	`{name: a, if: params.n > 1, then: [{name: b, tool: acquire, with: {module: x}}]}, {name: d, when: "!has(steps.b) || steps.b.devices.size() > 1", tool: free}`,
	`{name: a, if: params.n > 1, then: [{name: b, tool: acquire, with: {module: x}}]}, {name: d, if: has(steps.b), then: [{name: e, tool: free, with: {of: "${steps.b.devices}"}}]}`,
	`{name: a, if: params.n > 1, then: [{name: b, tool: acquire, with: {module: x}}]}, {name: d, if: "!has(steps.b)", then: [{name: e, tool: free}], else: [{name: g, tool: free, with: {of: "${steps.b.devices}"}}]}`,
	`{name: a, if: params.n > 1, then: [{name: b, tool: acquire, with: {module: x}}]}, {name: d, switch: [{when: "!has(steps.b)", steps: [{name: e, tool: free}]}, {when: "steps.b.devices.size() > 1", steps: [{name: g, tool: free, with: {of: "${steps.b.devices}"}}]}]}`,
	`{name: a, signal: "built/${params.module}", timeout: 1h, on_failure: skip}, {name: b, tool: free, with: {p: "${steps.a.payload.digest}", from: "${steps.a.from}"}}`,
	`{name: a, approve: {text: "grow ${params.module}?", by: [ann, "role:operator"], count: 2}, timeout: 2h}, {name: b, notify: {text: "${steps.a.by[0]}"}}`,
	`{name: a, sleep: 10m}`, `{name: a, sleep: 90}`, `{name: a, sleep: "${params.n * 60}"}`, `{name: a, sleep: "${params.n}m"}`, `{name: a, sleep: "${duration('90s')}"}`,
	`{name: a, window: {days: [mon, sun], from: "22:00", to: "05:30", zone: Asia/Shanghai}}`,
	`{name: a, tool: acquire, each: params.names, parallel: 4, batch: 10, quota: 10%, with: {module: "${item}"}, output: {first: "${output.devices[0].name}", at: "${index}", of: "${item}"}}, {name: b, tool: free, with: {x: "${steps.a.items[0].first}"}}`,
	`{name: a, tool: acquire, each: params.names, quota: 3, with: {module: "${item}"}}`,
	`{name: a, tool: acquire, with: {module: x}, repeat: {until: "output.devices.size() >= params.n || index > 3", every: 10s, max: 60}, output: {names: "${output.devices.map(d, d.name)}"}}, {name: b, tool: free, with: {x: "${steps.a.names[0] + '!'}"}}`,
	`{name: a, tool: acquire, exclusive: "db/${params.module}", heartbeat: 10s, retry: {attempts: 3, on: [busy, timeout]}, with: {module: x}}`,
	`{name: a, tool: acquire, with: {module: x}, on_failure: {steps: [{name: b, notify: {text: "${failure.step}: ${failure.code} ${failure.message}"}}, {name: c, if: failure.code == 'busy', then: [{name: d, sleep: 1m, when: failure.message != ''}]}]}}`,
	`{name: a, flow: other, with: {n: 3, names: "${params.names}"}, output: {ip: "${output.ip}"}}, {name: b, tool: acquire, with: {module: "${steps.a.ip}"}}`,
	`{name: a, flow: other@1, with: {m: 3}}`, `{name: a, flow: unknown, with: {m: 3}}`,
	`{name: a, tool: acquire, with: {module: x}, output: {d: "${output.devices}"}, undo: {tool: free, with: {of: "${steps.a.d}"}}}`,
	`{name: a, tool: free, with: {text: "${params.names.map(steps, steps + '!')[0]}"}}`,
}

func TestGoodBlocksAreTaken(t *testing.T) {
	t.Parallel()
	tools := lintTools()
	for _, step := range goodBlocks {
		if faults := flow.LintBeside(blocks(step), tools, others); len(faults) > 0 {
			t.Errorf("%s\n%v", step, faults)
		}
	}
}

// blocks makes a document of steps in one line.
func blocks(steps string) string {
	return strings.TrimSuffix(lintHead, "steps:\n  - {name: first, tool: acquire, with: {module: \"${params.module}\"}}\n") + blockHead + steps + "]"
}

const blockHead = `steps: [{name: first, tool: acquire, with: {module: "${params.module}"}}, `

// Every fault is said at the line and column where it is.
func TestBrokenBlocksAreRefused(t *testing.T) {
	t.Parallel()
	tools := lintTools()
	const chosen = `{name: a, if: params.n > 1, then: [{name: b, tool: acquire, with: {module: x}}], else: [{name: c, tool: free}]}, `
	for _, one := range []struct{ steps, want string }{
		{`^{name: a, if: params.n > 1}`, "is missing; a step with if has then"},
		{`{name: a, if: ^params.n, then: [{name: b, tool: free}]}`, "has type int, want bool"},
		{`{name: a, if: ^1 < 2, then: [{name: b, tool: free}]}`, "is always true"},
		{`{name: a, if: ^false, then: [{name: b, tool: free}]}`, "is always false"},
		{`{name: a, tool: free, when: ^"false"}`, "the step never runs"},
		{`{name: a, if: params.n > 1, then: ^[]}`, "want a list of steps"},
		{`{name: a, tool: free, then: ^[{name: b, tool: free}]}`, "is not for tool steps; it is for if"},
		{`{name: a, if: params.n > 1, then: [{name: b, tool: ^acquier}]}`, "did you mean"},
		{`{name: a, if: params.n > 1, then: [{name: ^first, tool: free}]}`, "is the name of the step in line 6 already"},
		{`{name: a, switch: ^[]}`, "want a list of cases"},
		{`{name: a, switch: [^{steps: [{name: b, tool: free}]}]}`, "is missing; a case has when"},
		{`{name: a, switch: [{when: ^"true", steps: [{name: b, tool: free}]}, {when: params.n > 1, steps: [{name: c, tool: free}]}]}`, "no case after it is reached"},
		{`{name: a, switch: [{when: params.n > 1, steps: [{name: b, tool: free}]}, {when: ^params.n > 1, steps: [{name: c, tool: free}]}]}`, "asks the same"},
		{`{name: a, switch: [{when: ^params.module, steps: [{name: b, tool: free}]}]}`, "has type string, want bool"},
		{`{name: a, branches: ^{}}`, "want a mapping of names"},
		{`{name: a, branches: {^Left: [{name: b, tool: free}]}}`, "is not a branch's name"},
		{`{name: a, branches: {left: [{name: b, tool: acquire, with: {module: x}}], right: [{name: c, tool: free, with: {x: "${^steps.b.devices}"}}]}}`, "on another way"},
		{`{name: a, if: params.n > 1, then: [{name: b, tool: acquire, with: {module: x}}], else: [{name: c, tool: free, with: {x: "${^steps.b.devices}"}}]}`, "on another way"},
		{`{name: a, if: params.n > 1, then: [{name: b, tool: free, with: {x: "${^steps.a}"}}]}`, "has not ended"},
		{`{name: a, if: params.n > 1, then: [{name: b, tool: free, with: {x: "${^steps.d}"}}]}, {name: d, tool: acquire, with: {module: x}}`, "runs later"},
		{chosen + `{name: d, tool: free, with: {x: "${^steps.b.devices}"}}`, "runs only if its way is chosen"},
		{chosen + `{name: d, tool: free, with: {x: "${has(steps.b) ? [] : ^steps.b.devices}"}}`, "runs only if its way is chosen"},
		{chosen + `{name: d, tool: free, with: {x: "${has(^steps.b.devices) ? 1 : steps.b.devices.size()}"}}`, "runs only if its way is chosen"},
		{chosen + `{name: d, tool: free, when: "has(steps.c) || ^steps.b.devices.size() > 1"}`, "runs only if its way is chosen"},
		{chosen + `{name: d, if: has(steps.b), then: [{name: e, tool: free}], else: [{name: g, tool: free, with: {of: "${^steps.b.devices}"}}]}`, "runs only if its way is chosen"},
		{chosen + `{name: d, tool: free, with: {x: "${has(^steps.a)}"}}`, "is an if and has no output"},
		{`{name: a, signal: ^""}`, "is empty"},
		{`{name: a, signal: go, retry: ^{attempts: 2}}`, "is not for signal steps"},
		{`{name: a, signal: ^"${params.n}"}`, "has type int, want string"},
		{`{name: a, approve: ^{by: [ann]}}`, "say what is to be approved"},
		{`{name: a, approve: {text: x, by: [ann, bob], count: ^3}}`, "by names 2"},
		{`{name: a, approve: {text: x, by: [ann, ^ann]}}`, "is said twice"},
		{`{name: a, approve: {text: x, by: [^"role:"]}}`, "names no role"},
		{`{name: a, approve: {text: ^"${params.names}"}}`, "is no text"},
		{`{name: a, sleep: ^soon}`, "want a number with a unit"},
		{`{name: a, sleep: ^0s}`, "is no wait"},
		{`{name: a, sleep: ^9000h}`, "more than a year"},
		{`{name: a, sleep: ^"${params.names}"}`, "want a duration"},
		{`{name: a, sleep: 10m, timeout: ^1m}`, "is not for sleep steps"},
		{`{name: a, window: ^{from: "01:00"}}`, "is missing; a window has from and to"},
		{`{name: a, tool: acquire, batch: ^2, with: {module: x}}`, "is for steps with each"},
		{`{name: a, tool: acquire, each: params.names, quota: ^some, with: {module: x}}`, "is no quota"},
		{`{name: a, tool: acquire, each: params.names, quota: ^101%, with: {module: x}}`, "is no quota"},
		{`{name: a, tool: acquire, each: params.names, quota: ^10%, on_failure: skip, with: {module: x}}`, "does not go with on_failure: skip"},
		{`{name: a, tool: acquire, each: params.names, repeat: ^{until: index > 1, max: 3}, with: {module: x}}`, "does not go with each"},
		{`{name: a, tool: acquire, repeat: ^{until: index > 1}, with: {module: x}}`, "a repeat has until and max"},
		{`{name: a, tool: acquire, repeat: {until: ^output.devices, max: 3}, with: {module: x}}`, "has type list"},
		{`{name: a, tool: acquire, repeat: {until: output^.device == 'x', max: 3}, with: {module: x}}`, "undefined field 'device'"},
		{`{name: a, tool: acquire, repeat: {until: ^params.n > 3, max: 3}, with: {module: x}}`, "looks at neither output nor index"},
		{`{name: a, tool: acquire, repeat: {until: ^"true", max: 3}, with: {module: x}}`, "one iteration is enough"},
		{`{name: a, tool: acquire, with: {module: x}, output: {a: "${output^.nothing}"}}`, "undefined field 'nothing'"},
		{`{name: a, tool: acquire, with: {module: x}, output: ^{}}`, "is empty"},
		{`{name: a, tool: acquire, with: {module: x}, output: {n: "${output.devices}"}}, {name: b, tool: free, with: {x: "${steps.a^.devices}"}}`, "undefined field 'devices'"},
		{`{name: a, tool: acquire, with: {module: "${^output}"}}`, "output is there only"},
		{`{name: a, tool: acquire, with: {module: "${^failure.code}"}}`, "failure is there only"},
		{`{name: a, tool: acquire, with: {module: x}, on_failure: ^{}}`, "a handler has steps"},
		{`{name: a, tool: acquire, with: {module: x}, on_failure: {steps: [{name: b, notify: {text: "${failure^.why}"}}]}}`, "undefined field 'why'"},
		{`{name: a, tool: acquire, with: {module: x}, on_failure: {steps: [{name: b, tool: free, with: {x: "${^steps.a.devices}"}}]}}`, "has not ended"},
		{`{name: a, notify: {text: x}, exclusive: ^x}`, "is not for notify steps"},
		{`{name: a, tool: acquire, with: {module: x}, retry: {on: ^[]}}`, "is empty"},
		{`{name: a, flow: ^Other}`, "is not a flow's name"},
		{`{name: a, flow: ^other@x}`, "is no version"},
		{`{name: a, flow: ^other@9}`, "has no version 9"},
		{`{name: a, flow: ^unknown@7}`, "no flow is called"},
		{`{name: a, flow: ^f}`, "would run itself: f -> f"},
		{`{name: a, flow: ^back}`, "would run itself: f -> back -> round -> f"},
		{`{name: a, flow: other, with: ^{names: []}}`, "is missing; other requires it"},
		{`{name: a, flow: other, with: {n: ^x}}`, "is a text, want int"},
		{`{name: a, flow: other, with: {n: ^0}}`, "want at least 1"},
		{`{name: a, flow: other, with: {n: ^"${params.module}"}}`, "has type string, want int"},
		{`{name: a, flow: other, with: {n: 1, ^nam: x}}`, "has no parameter"},
		{`{name: a, flow: other, with: {n: 1}}, {name: b, tool: free, with: {x: "${steps.a^.ipp}"}}`, "undefined field 'ipp'"},
		{`{name: a, window: {from: ^"25:00", to: "03:00"}}`, "25:00"},
		{`{name: a, window: {from: "01:00", to: "03:00", zone: ^Mars/Olympus}}`, "Mars/Olympus"},
		{`{name: a, window: {from: "01:00", to: "03:00", days: [^monday]}}`, "monday"},
		{`{name: a, window: {from: "01:00", to: ^"1:00"}}`, "1:00"},
		{`{name: a, window: {from: "01:00", to: "03:00", days: [mon, tue, ^mon]}}`, "is said twice"},
		{`{name: a, flow: other, exclusive: ^x, with: {n: 1}}`, "is not for flow steps"},
	} {
		column := strings.IndexByte(one.steps, '^')
		steps := one.steps[:column] + one.steps[column+1:]
		faults := flow.LintBeside(blocks(steps), tools, others)
		if len(faults) == 0 {
			t.Errorf("%s: taken, want %q", steps, one.want)
			continue
		}
		if f := faults[0]; f.Line != 6 || f.Column != len(blockHead)+column+1 || !strings.Contains(f.Message, one.want) {
			t.Errorf("%s\n got %v\nwant 6:%d: ...%s", steps, f, len(blockHead)+column+1, one.want)
		}
	}
}

// What parameters of few values decide is tried with all of them.
func TestUnreachableByParameters(t *testing.T) {
	t.Parallel()
	const head = "flow: f\nparams: {mode: {enum: [a, b, c], required: true}, free: {enum: [a, b]}, dry: bool, n: int}\nsteps:\n  - "
	tools := lintTools()
	cases := func(conditions ...string) string {
		for i, one := range conditions {
			conditions[i] = fmt.Sprintf(`{when: "%s", steps: [{name: s%d, tool: free}]}`, one, i)
		}
		return "{name: x, switch: [" + strings.Join(conditions, ", ") + "]}"
	}
	for step, want := range map[string]string{
		`{name: x, tool: free, when: "params.mode == 'd'"}`:                         "4:33: steps[0].when: is false whatever",
		`{name: x, tool: free, when: "params.mode != 'd' || params.dry"}`:           "is true whatever",
		`{name: x, tool: free, when: "params.mode == 'a' && params.dry"}`:           "",
		`{name: x, tool: free, when: "params.free == ''"}`:                          "", // it is empty if nobody says it
		`{name: x, tool: free, when: "params.mode == 'd' || params.n > 1"}`:         "",
		`{name: x, if: "params.dry && !params.dry", then: [{name: y, tool: free}]}`: "is false whatever",
		cases("params.mode == 'a'", "params.mode == 'b'", "params.mode == 'c'"):     "",
		cases("params.mode == 'a'", "params.mode == 'a' && params.dry"):             "a case before it holds",
		cases("params.mode != 'a'", "params.dry", "params.mode == 'b'"):             "a case before it holds",
		cases("params.mode == 'a'", "params.n > 1", "params.mode == 'a'  && true"):  "a case before it holds",
		cases("params.n > 1", "params.mode == 'a'"):                                 "",
	} {
		faults := flow.LintBeside(head+step, tools, nil)
		if got := fmt.Sprint(faults); (want == "") != (len(faults) == 0) || len(faults) > 1 || !strings.Contains(got, want) {
			t.Errorf("%s: %v, want %q", step, got, want)
		}
	}
}

// Outside of the steps.
func TestBrokenHeadsAreRefused(t *testing.T) {
	t.Parallel()
	tools := lintTools()
	for head, want := range map[string]string{
		"output: {x: \"${^steps.b}\"}":                      "no step is called",
		"output: {x: \"${steps.first^.nothing}\"}":          "undefined field 'nothing'",
		"locks: [\"m/${params.module}\", ^\"${params.n}\"]": "has type int, want string",
		"locks: [\"m/${^steps.first.devices}\"]":            "runs later",
		"start: ^{}":                                        "say who may start it",
		"start: {by: ^[]}":                                  "is empty",
		"priority: ^10":                                     "from 0 to 9",
		"^prioriti: 1":                                      "did you mean \"priority\"",
	} {
		column := strings.IndexByte(head, '^')
		source := lintHead + head[:column] + head[column+1:]
		faults := flow.LintBeside(source, tools, nil)
		if len(faults) != 1 || faults[0].Line != strings.Count(lintHead, "\n")+1 || faults[0].Column != column+1 || !strings.Contains(faults[0].Message, want) {
			t.Errorf("%s: %v, want column %d: %s", head, faults, column+1, want)
		}
	}
	good := lintHead + "output: {x: \"${steps.first.devices[0].name}\", y: [1, \"${params.n}\"]}\nlocks: [\"m/${params.module}\"]\nstart: {by: [ann, \"role:operator\"]}\npriority: 9\n"
	if faults := flow.LintBeside(good, tools, nil); len(faults) > 0 {
		t.Error(fmt.Sprint(faults))
	}
}
