package flow

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Filter selects executions: those that fit every field that is set. The zero filter selects all.
type Filter struct {
	Flow    string
	Version int
	States  []State           // one of these
	Open    bool              // only executions that have not ended
	Wakes   []WakeKind        // what moves them on is one of these
	Step    string            // at which they are
	Actor   string            // who started it
	Key     string            // it was started with
	Parent  string            // sub-flows of this execution
	Params  map[string]string // started with all of these: see Tag for how values are written
	Device  string            // a step has run on it, or was about to
	Text    string            // part of the error, or of what is waited for; capitals count
	Since   time.Time         // started at or after
	Until   time.Time         // started before
	// EndedBefore selects executions that ended before a time.
	EndedBefore time.Time

	Limit  int    // at most so many; 0 is 100 through Engine.List, everything through a Store
	Oldest bool   // oldest first
	After  string // go on after this ID: what the last page returned
}

// Tags are what the filter looks up in the index of tags, in a fixed order. It is for implementations of Store.
func (f *Filter) Tags() []Tag {
	var out []Tag
	for _, name := range slices.Sorted(maps.Keys(f.Params)) {
		out = append(out, Tag{paramTag + name, f.Params[name]})
	}
	if f.Device != "" {
		out = append(out, Tag{deviceTag, f.Device})
	}
	return out
}

// Tag is something that an execution is found by: "param.NAME" with a parameter's value, or "device" with the name of a
// device that a step ran on. Texts stand as they are, numbers and bools as in JSON, and each entry of a list has its own. What has no
// tag is a secret, a text that holds one, a map, a text of more than 256 bytes, and the entries of a list after the 256th.
type Tag struct{ Name, Value string }

const (
	paramTag  = "param."
	deviceTag = "device"
	maxTag    = 256 // bytes of a value, and entries of a list
)

// tags are those that the events of a transition bring.
func (m *machine) tags() []Tag {
	var out []Tag
	for i := range m.events {
		switch e := &m.events[i]; {
		case e.Kind == EventStarted:
			out = append(out, m.x.paramTags()...)
		case e.Kind == EventAttemptStarted && e.Device != "" && !m.x.tagged[e.Device]:
			if m.x.tagged == nil {
				m.x.tagged = map[string]bool{}
			}
			m.x.tagged[e.Device] = true
			out = append(out, Tag{deviceTag, e.Device})
		}
	}
	return out
}

// paramTags are the tags of the parameters that the execution was started with.
func (x *Execution) paramTags() []Tag {
	var out []Tag
	secrets := x.secrets()
	add := func(name string, value any) {
		text, ok := tagText(value)
		if ok && text != "" && len(text) <= maxTag && redactText(text, secrets) == text {
			out = append(out, Tag{paramTag + name, text})
		}
	}
	for i := range x.def.Params {
		p := &x.def.Params[i]
		if p.value == nil || p.value.secret {
			continue
		}
		value := x.Params[p.Name]
		if list, ok := value.([]any); ok {
			for _, entry := range list[:min(len(list), maxTag)] {
				add(p.Name, entry)
			}
			continue
		}
		add(p.Name, value)
	}
	return out
}

// tagText is how a tag writes a value.
func tagText(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return strings.ToValidUTF8(v, "?"), !strings.Contains(v, "\x00")
	case bool:
		return strconv.FormatBool(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), true
	}
	return "", false
}
