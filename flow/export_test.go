package flow

import "strconv"

// EncodeEvents is for the test of the encoding.
var EncodeEvents = encodeEvents

// LintAhead lints a document beside others, by name and by name@version, with what the machine does not run.
func LintAhead(source string, tools *Tools, others map[string]string) []Fault {
	lib := library{tools: tools, ahead: true}
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
	_, faults := compileWith([]byte(source), lib)
	return faults
}

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
