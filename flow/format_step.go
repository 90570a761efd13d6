package flow

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

var (
	leaves    = []kind{kindTool, kindFlow}
	toolsOnly = []kind{kindTool}
)

func stepFields() []field[Step] {
	return slices.Concat([]field[Step]{
		{name: "name", must: "each step has a name", form: nameForm, about: "Names the step; no other step of the document has the same name.",
			codec: asText(func(s *Step) *string { return &s.Name })},
		{name: "title", form: textForm, about: "What people read.", codec: asText(func(s *Step) *string { return &s.Title })},
		{name: "stage", form: textForm, about: "Groups steps for people; by default the tool's.", codec: asText(func(s *Step) *string { return &s.Stage })},
		{name: "when", form: conditionFor, about: "A condition; if it does not hold, the step is skipped.", codec: asFullText(func(s *Step) *string { return &s.When })},
	}, kindFields(), leafFields())
}

// kindFields are the fields of which a step has exactly one, and what goes with each.
func kindFields() []field[Step] {
	return []field[Step]{
		{name: string(kindTool), form: map[string]any{"type": "string", "pattern": toolName.String()}, about: "Runs a tool.",
			codec: asFullText(func(s *Step) *string { return &s.Tool })},
		{name: string(kindFlow), form: map[string]any{"type": "string", "pattern": `^[a-z][a-z0-9_.-]{0,62}(@[1-9][0-9]*)?$`},
			about: "Runs another flow: NAME, its latest version, or NAME@VERSION.", codec: asFullText(func(s *Step) *string { return &s.Flow })},
		{name: string(kindNotify), form: refForm("notify"), about: "Sends a notice.",
			codec: asFields(func(s *Step) **Notify { return &s.Notify }, func(f *format) []field[Notify] { return f.notify }, Notify{Severity: "info"})},
		{name: string(kindIf), needs: []string{"then"}, form: conditionFor, about: "A condition: then runs if it holds, else if not.",
			codec: asFullText(func(s *Step) *string { return &s.If })},
		{name: "then", kinds: []kind{kindIf}, form: refForm("steps"), about: "The steps that run if the condition holds.", codec: asSteps(func(s *Step) *[]Step { return &s.Then })},
		{name: string(kindSwitch), form: map[string]any{"type": "array", "items": refForm("case"), "minItems": 1},
			about: "Cases in order: the first whose condition holds runs, or else. If none does, nothing runs, and that is no failure.",
			codec: codec[Step]{
				func(d *document, into *Step, n *yaml.Node, path string) { into.Switch = d.cases(n, path) },
				func(f *format, from *Step) *yaml.Node { return listNode(f, from.Switch, f.choice) },
			}},
		{name: "else", kinds: []kind{kindIf, kindSwitch}, form: refForm("steps"), about: "The steps that run otherwise.", codec: asSteps(func(s *Step) *[]Step { return &s.Else })},
		{name: string(kindBranches), form: map[string]any{"type": "object", "propertyNames": nameForm, "additionalProperties": refForm("steps"), "minProperties": 1},
			about: "Lists of steps by name that run side by side; the step ends when all have.",
			codec: codec[Step]{
				func(d *document, into *Step, n *yaml.Node, path string) { into.Branches = d.branches(n, path) },
				func(f *format, from *Step) *yaml.Node { return branchesNode(f, from.Branches) },
			}},
		{name: string(kindSignal), form: textForm, about: "Waits for the signal of that name, which may hold expressions. Its output is {payload, id, from}.",
			codec: asFullText(func(s *Step) *string { return &s.Signal })},
		{name: string(kindApprove), form: refForm("approve"), about: "Waits for people to approve. Its output is {approved, by, comment}; a refusal is a failure with the code " + CodeRefused + ".",
			codec: asFields(func(s *Step) **Approve { return &s.Approve }, func(f *format) []field[Approve] { return f.approve }, Approve{Count: 1})},
		{name: string(kindSleep), form: map[string]any{"type": []any{"string", "integer"}}, about: "Waits: a duration, or an expression of one or of seconds.",
			codec: asFullText(func(s *Step) *string { return &s.Sleep })},
		{name: string(kindWindow), form: refForm("window"), about: "Waits until inside a time window.",
			codec: asFields(func(s *Step) **Window { return &s.Window }, func(f *format) []field[Window] { return f.window }, Window{})},
	}
}

// leafFields say more about a step that does something by itself.
func leafFields() []field[Step] {
	return []field[Step]{
		{name: "with", kinds: leaves, form: mappingForm, about: "The input, or the parameters of the flow. Texts may hold ${expressions}; one that is an expression alone keeps its type.",
			codec: asMapping(func(s *Step) *map[string]any { return &s.With })},
		{name: "output", kinds: leaves, form: mappingForm, about: "What other steps see, made of what came back (the variable output); by default that as it is.",
			codec: asMapping(func(s *Step) *map[string]any { return &s.Output })},
		{name: "on", kinds: toolsOnly, form: textForm, about: "The device whose worker runs the tool.", codec: asFullText(func(s *Step) *string { return &s.On })},
		{name: "each", kinds: leaves, form: textForm, about: "A list: the step runs once per entry, which is item, and its position index. Its output is {items: [...]}.",
			codec: asFullText(func(s *Step) *string { return &s.Each })},
		{name: "parallel", kinds: leaves, needs: []string{"each"}, form: countForm, about: "How many items run at a time; by default 1.", codec: asCount(func(s *Step) *int { return &s.Parallel })},
		{name: "batch", kinds: leaves, needs: []string{"each"}, form: countForm, about: "So many items make a batch; the next one starts when all of the last have ended.", codec: asCount(func(s *Step) *int { return &s.Batch })},
		{name: "quota", kinds: leaves, needs: []string{"each"}, form: map[string]any{"type": []any{"string", "integer"}, "pattern": `^[0-9]+%?$`},
			about: "So many items, or such a share of them (10%), may fail before the step does. What failed is null in the output.",
			codec: asFullText(func(s *Step) *string { return &s.Quota })},
		{name: "repeat", kinds: leaves, apart: "each", form: refForm("repeat"), about: "Runs the step again and again until a condition holds. Its output is that of the last iteration. Each iteration is undone, the last first.",
			codec: asFields(func(s *Step) **Repeat { return &s.Repeat }, func(f *format) []field[Repeat] { return f.repeat }, Repeat{})},
		{name: "retry", kinds: leaves, form: refForm("retry"), about: "How often a failed attempt is made again; by default never.",
			codec: asRetry(func(s *Step) *Retry { return &s.Retry })},
		{name: "timeout", kinds: []kind{kindTool, kindFlow, kindSignal, kindApprove}, form: durationForm,
			about: "Bounds an attempt, or the wait for a signal or an approval. By default the tool's, else " + DefaultTimeout.String() + "; a wait has none.",
			codec: asDuration(func(s *Step) *Duration { return &s.Timeout })},
		{name: "total", kinds: leaves, form: durationForm, about: "Bounds all attempts of an item together; by default there is none.", codec: asDuration(func(s *Step) *Duration { return &s.Total })},
		{name: "heartbeat", kinds: toolsOnly, form: durationForm, about: "A tool that says nothing for so long is lost.", codec: asDuration(func(s *Step) *Duration { return &s.Heartbeat })},
		{name: "exclusive", kinds: toolsOnly, form: textForm, about: "A key that may hold expressions: of all steps of all executions, one runs under it at a time.",
			codec: asFullText(func(s *Step) *string { return &s.Exclusive })},
		{name: "undo", kinds: leaves, form: map[string]any{"oneOf": []any{enumForm("none"), refForm("undo")}}, about: "How the step is taken back when its execution fails or is cancelled: none, or a mapping; by default the tool's own.",
			codec: codec[Step]{
				func(d *document, into *Step, n *yaml.Node, path string) { into.Undo = d.undo(n, path) },
				func(f *format, from *Step) *yaml.Node {
					switch {
					case from.Undo == nil:
						return nil
					case from.Undo.None:
						return valueNode("none")
					}
					return writeFields(f, from.Undo, f.undo)
				},
			}},
		{name: "on_failure", kinds: []kind{kindTool, kindFlow, kindSignal, kindApprove, kindSleep, kindWindow}, form: map[string]any{"oneOf": []any{enumForm("fail", "skip", "pause"), refForm("handler")}},
			about: "What becomes of the execution when the step has failed for good: fail (the default: what was done is undone), skip (go on without its output), pause (wait for a person), or steps that handle it.",
			codec: codec[Step]{
				func(d *document, into *Step, n *yaml.Node, path string) {
					into.OnFailure, into.Handler = d.stepFailure(n, path)
				},
				func(f *format, from *Step) *yaml.Node {
					if len(from.Handler) > 0 {
						return writeFields(f, from, f.handler)
					}
					return textNode(string(from.OnFailure))
				},
			}},
	}
}

func notifyFields() []field[Notify] {
	return []field[Notify]{
		{name: "text", must: "a notice says something", form: textForm, about: "What it says; it may hold expressions.", codec: asFullText(func(s *Notify) *string { return &s.Text })},
		{name: "severity", form: enumForm("info", "warning", "critical"), about: "info (the default), warning or critical.",
			codec: asWord(func(s *Notify) *string { return &s.Severity }, "info", "warning", "critical")},
	}
}

func retryFields() []field[Retry] {
	return []field[Retry]{
		{name: "attempts", form: countForm, about: "In all; by default 1, of an undo 10.", codec: asCount(func(r *Retry) *int { return &r.Attempts })},
		{name: "backoff", form: durationForm, about: "The wait before the second attempt; it doubles from one to the next. By default " + DefaultBackoff.String() + ".",
			codec: asDuration(func(r *Retry) *Duration { return &r.Backoff })},
		{name: "max", form: durationForm, about: "The longest wait; by default " + DefaultBackoffMax.String() + ".", codec: asDuration(func(r *Retry) *Duration { return &r.Max })},
		{name: "on", form: textsForm, about: "The codes of the errors that are tried again; by default all that are not permanent.", codec: asTexts(func(r *Retry) *[]string { return &r.On })},
	}
}

func undoFields() []field[Undo] {
	return []field[Undo]{
		{name: "tool", form: map[string]any{"type": "string", "pattern": toolName.String()}, about: "The tool that takes it back; by default what the step's tool names.", codec: asFullText(func(u *Undo) *string { return &u.Tool })},
		{name: "with", form: mappingForm, about: "Its input; by default the step's own. In it, steps.NAME of the step itself is what it has left, of an iteration that one's own output.", codec: asMapping(func(u *Undo) *map[string]any { return &u.With })},
		{name: "retry", form: refForm("retry"), about: "How often it is tried; by default 10 times, after 500ms doubling to 30s.",
			codec: asRetry(func(u *Undo) *Retry { return &u.Retry })},
		{name: "on_failure", form: enumForm("fail", "skip"), about: "fail (the default: it waits for a person) or skip.",
			codec: asWord(func(u *Undo) *OnFailure { return &u.OnFailure }, Fail, Skip)},
	}
}

func caseFields() []field[Case] {
	return []field[Case]{
		{name: "when", must: "a case has when and steps", form: conditionFor, about: "The condition.", codec: asFullText(func(c *Case) *string { return &c.When })},
		{name: "steps", must: "a case has when and steps", form: refForm("steps"), about: "What runs if it is the first that holds.", codec: asSteps(func(c *Case) *[]Step { return &c.Steps })},
	}
}

func approveFields() []field[Approve] {
	return []field[Approve]{
		{name: "text", must: "say what is to be approved", form: textForm, about: "The question; it may hold expressions.", codec: asFullText(func(a *Approve) *string { return &a.Text })},
		{name: "by", form: textsForm, about: "Who may: actors, or role:NAME; by default everybody who may approve.",
			codec: asActors(func(a *Approve) *[]string { return &a.By })},
		{name: "count", form: countForm, about: "How many different people have to; by default 1.", codec: asCount(func(a *Approve) *int { return &a.Count })},
	}
}

func windowFields() []field[Window] {
	clock := map[string]any{"type": "string", "pattern": `^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$`}
	return []field[Window]{
		{name: "from", must: "a window has from and to, as in 01:00", form: clock, about: "The time of the day at which it opens: 01:00.", codec: asFullText(func(w *Window) *string { return &w.From })},
		{name: "to", must: "a window has from and to, as in 05:30", form: clock, about: "The time at which it closes, at most 24:00; if that is not after from, on the next day.", codec: asFullText(func(w *Window) *string { return &w.To })},
		{name: "days", form: map[string]any{"type": "array", "items": enumForm("mon", "tue", "wed", "thu", "fri", "sat", "sun"), "minItems": 1}, about: "The days on which it opens; by default all.",
			codec: asTexts(func(w *Window) *[]string { return &w.Days })},
		{name: "zone", form: textForm, about: "The time zone by its IANA name, as in Asia/Shanghai; by default UTC.", codec: asFullText(func(w *Window) *string { return &w.Zone })},
	}
}

func repeatFields() []field[Repeat] {
	return []field[Repeat]{
		{name: "until", must: "a repeat has until and max", form: textForm, about: "The condition that ends it, over output, of the last iteration, and index, its number from 0.", codec: asFullText(func(r *Repeat) *string { return &r.Until })},
		{name: "max", must: "a repeat has until and max", form: countForm, about: "After so many iterations without it the step has failed.", codec: asCount(func(r *Repeat) *int { return &r.Max })},
		{name: "every", form: durationForm, about: "The wait between the end of an iteration and the next; by default none.", codec: asDuration(func(r *Repeat) *Duration { return &r.Every })},
	}
}

func handlerFields() []field[Step] {
	return []field[Step]{
		{name: "steps", must: "a handler has steps", form: refForm("steps"), about: "They see the variable failure, with step, code and message; when they have ended, the flow goes on behind the step.",
			codec: asSteps(func(s *Step) *[]Step { return &s.Handler })},
	}
}
