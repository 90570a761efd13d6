package flow

import (
	"fmt"
	"slices"
	"strings"
)

// FormatPage returns the reference of the format for people, in Markdown. It is made of the table by which documents are read.
func FormatPage() []byte {
	f := newFormat()
	var b strings.Builder
	b.WriteString(formatIntro)
	section(&b, "A document", "", f.document)
	section(&b, "A parameter", "`params` maps names to types, or to mappings of", f.param)
	b.WriteString("\n## A step\n\nA step has exactly one of " + kindList(stepKinds) + ".\nThe column *of* names the kinds of steps that may have a field.\n\n| field | of | |\n|---|---|---|\n")
	for _, one := range f.step {
		of := "all"
		if slices.ContainsFunc(stepKinds, func(k kind) bool { return one.name == string(k) }) {
			of = ""
		} else if one.kinds != nil {
			of = kindList(one.kinds)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", one.name, of, cell(one))
	}
	section(&b, "notify", "", f.notify)
	section(&b, "switch", "A list of", f.choice)
	section(&b, "approve", "", f.approve)
	section(&b, "window", "", f.window)
	section(&b, "repeat", "", f.repeat)
	section(&b, "retry", "", f.retry)
	section(&b, "undo", "`none`, or", f.undo)
	section(&b, "on_failure", "`fail`, `skip`, `pause`, or", f.handler)
	section(&b, "start", "", f.starters)
	b.WriteString(formatEnd)
	return []byte(b.String())
}

func kindList(kinds []kind) string {
	return "`" + strings.ReplaceAll(listKinds(kinds), ", ", "`, `") + "`"
}

func cell[T any](f field[T]) string {
	text := f.about
	if f.must != "" {
		text += " Required."
	}
	for _, needed := range f.needs {
		text += " Needs `" + needed + "`."
	}
	if f.apart != "" {
		text += " Not with `" + f.apart + "`."
	}
	return strings.ReplaceAll(text, "|", "\\|")
}

func section[T any](b *strings.Builder, title, about string, table []field[T]) {
	fmt.Fprintf(b, "\n## %s\n\n", title)
	if about != "" {
		b.WriteString(about + "\n\n")
	}
	b.WriteString("| field | |\n|---|---|\n")
	for _, one := range table {
		fmt.Fprintf(b, "| `%s` | %s |\n", one.name, cell(one))
	}
}

const formatIntro = `# The format of flows

<!-- Made by flow.FormatPage: go test ./flow -run Published -record -->

A flow is a YAML document. ` + "`zhiyun flow lint FILE`" + ` checks it against the tools and flows of the server and names line and column of each fault; ` + "`zhiyun flow schema`" + `
prints its JSON Schema, which is also in docs/flow.schema.json. An editor with the YAML language server finds it by a first line

    # yaml-language-server: $schema=flow.schema.json
`

const formatEnd = `
## Expressions

Conditions (` + "`when`, `if`, `until`" + `), lists (` + "`each`" + `) and what stands between ` + "`${` and `}`" + ` in a text is CEL, with its extension for strings. ` + "`$${`" + ` stands for the two
characters. A text that is one expression keeps the expression's type; in a longer one values become text.

| variable | where | what |
|---|---|---|
| ` + "`params`" + ` | everywhere | the parameters |
| ` + "`steps.NAME`" + ` | in steps and the flow's output | the output of a step |
| ` + "`execution`" + ` | everywhere | id, flow, key, actor, reason |
| ` + "`item`, `index`" + ` | with each: in with, on, output, exclusive, undo; index with repeat: in until, undo | the entry and its position, the number of the iteration |
| ` + "`output`" + ` | in output and until | what the tool or flow returned |
| ` + "`failure`" + ` | in a handler | step, code, message |

A step sees the outputs of steps that surely came before it: those above it in its own list, and above the steps that hold it. Steps within an earlier
` + "`branches`" + ` are among them. One that runs only if its way was chosen (in an if, a switch or a handler) has to be asked for: ` + "`has(steps.b) ? steps.b.ip : ''`" + `; a
condition around does as well. Steps on another way of the same step are never seen.

A step that was skipped, by its ` + "`when`" + ` or because it failed with ` + "`on_failure: skip`" + `, has no output: an expression over it fails when it is evaluated.

Expressions have a bound on their cost, for lists of 1,000 entries and texts of 1,024 bytes, and are held to it, and to 50 ms, when they run.
`
