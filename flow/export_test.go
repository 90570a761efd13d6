package flow

import "io"

import "strconv"

// EncodeEvents is for the test of the encoding.
var EncodeEvents = encodeEvents

// LintBeside lints a document beside others, by name and by name@version.
func LintBeside(source string, tools *Tools, others map[string]string) []Fault {
	_, faults := compileWith([]byte(source), beside(tools, others))
	return faults
}

func beside(tools *Tools, others map[string]string) library {
	lib := library{tools: tools}
	lib.flow = func(name string, version int) *program {
		if version > 0 {
			name += "@" + strconv.Itoa(version)
		}
		if others[name] == "" {
			return nil
		}
		p, _ := compileWith([]byte(others[name]), lib)
		return p
	}
	lib.missing = func(name string, version int) bool { return lib.flow(name, version) == nil }
	return lib
}

// PlanBeside plans a document as LintBeside lints it.
func PlanBeside(source string, tools *Tools, others map[string]string, params map[string]any) (Plan, error) {
	p, faults := compileWith([]byte(source), beside(tools, others))
	if len(faults) > 0 {
		return Plan{}, &DefinitionError{"", faults}
	}
	bound, err := p.bind(params)
	if err != nil {
		return Plan{}, err
	}
	return p.plan(bound), nil
}

// Orders are the names of all orders.
var Orders = orderNames

// AppendValue is for the test that holds it to encoding/json.
var AppendValue = appendValue

// Load is how many attempts wait, and how many executions are open.
func (e *Engine) Load() (waiting, open int) {
	for _, n := range e.gate.waits() {
		waiting += n
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return waiting, len(e.runs)
}

// Live is how many executions are in memory.
func (e *Engine) Live() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.runs)
}

// Listeners is how many executions are remembered because somebody waits for what comes of them.
func (e *Engine) Listeners() int {
	n := 0
	for _, b := range []*bells{&e.moved, &e.logs.grown} {
		b.mu.Lock()
		n += len(b.of)
		b.mu.Unlock()
	}
	return n
}

// NewStriker is for the test of logs in pieces.
func NewStriker(w io.Writer, secrets []string) io.WriteCloser { return newStriker(w, secrets) }
