package flow

// EncodeEvents is for the test of the encoding.
var EncodeEvents = encodeEvents

// AppendValue is for the test that holds it to encoding/json.
var AppendValue = appendValue

// Live is how many executions are in memory.
func (e *Engine) Live() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.runs)
}
