package sqlitestore

import (
	"bytes"
	"sync"
)

// What a history holds is JSON, of which two thirds are the same few words. JSON has no control characters but white space, so each of those that are left
// can stand for a phrase: a body is packed by putting them in the places of phrases. One without phrases is packed as it is, and so is every body that was
// stored before there was packing.

// phrases by the byte that stands for them; the longer before those with which they begin. They are stored: never change one. Tab, line feed and carriage
// return are white space, and none of them; asIs is none either.
var phrases = []struct{ code, text string }{
	{"\x01", `[{"kind":"attempt.done","step":"`},
	{"\x02", `"},{"kind":"attempt.started","step":"`},
	{"\x03", `"},{"kind":"attempt.queued","step":"`},
	{"\x04", `}},{"kind":"step.done","step":"`},
	{"\x05", `[{"kind":"attempt.failed","step":"`},
	{"\x06", `"},{"kind":"step.entered","step":"`},
	{"\x07", `"},{"kind":"execution.`},
	{"\x08", `[{"kind":"execution.started"`},
	{"\x0b", `{"kind":"execution.`},
	{"\x0c", `{"kind":"attempt.`},
	{"\x0e", `{"kind":"undo.`},
	{"\x0f", `{"kind":"step.`},
	{"\x10", `{"kind":"`},
	{"\x11", `","attempt":1,"input":{"`},
	{"\x12", `","attempt":1,"output":{"`},
	{"\x13", `","attempt":1,"error":{"code":"`},
	{"\x14", `","attempt":`},
	{"\x15", `,"attempt":1,"input":{"`},
	{"\x16", `,"attempt":1,"output":{"`},
	{"\x17", `,"attempt":`},
	{"\x18", `","item":`},
	{"\x19", `","message":"`},
	{"\x1a", `,"retry_at":"`},
	{"\x1b", `,"device":"`},
	{"\x1c", `,"tool":"`},
	{"\x1d", `,"ran":{"version":"`},
	{"\x1e", `","step":"`},
	{"\x1f", `,"error":{"code":"`},
}

// asIs leads a body that is not JSON: it has bytes that stand for phrases.
const asIs = '\x00'

// phrasebook finds phrases.
type phrasebook struct {
	begin [256][]int // those that begin with a byte, as indexes of phrases
	text  [' ']string
}

var book = sync.OnceValue(func() *phrasebook {
	b := &phrasebook{}
	for i, p := range phrases {
		b.begin[p.text[0]] = append(b.begin[p.text[0]], i)
		b.text[p.code[0]] = p.text
	}
	return b
})

// pack returns what is stored of a body.
func pack(body []byte) []byte {
	b := book()
	out := make([]byte, 0, len(body)+1)
next:
	for i := 0; i < len(body); i++ {
		if stands(body[i]) {
			return append(append(out[:0], asIs), body...)
		}
		for _, at := range b.begin[body[i]] {
			p := &phrases[at]
			if len(body)-i > 2 && body[i+2] == p.text[2] && bytes.HasPrefix(body[i:], []byte(p.text)) {
				out = append(out, p.code[0])
				i += len(p.text) - 1
				continue next
			}
		}
		out = append(out, body[i])
	}
	return out
}

// unpack returns the body of which this is stored.
func unpack(packed []byte) []byte {
	if len(packed) > 0 && packed[0] == asIs {
		return packed[1:]
	}
	b := book()
	size := 0
	for _, c := range packed {
		if size++; stands(c) {
			size += len(b.text[c])
		}
	}
	out := make([]byte, 0, size)
	for _, c := range packed {
		if stands(c) {
			out = append(out, b.text[c]...)
		} else {
			out = append(out, c)
		}
	}
	return out
}

// stands reports whether a byte is for packing alone.
func stands(c byte) bool { return c < ' ' && c != '\t' && c != '\n' && c != '\r' }
