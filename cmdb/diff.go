package cmdb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// FieldChange is one field before and after. Old is nil if it was not there, New if it is no more.
type FieldChange struct {
	Field string          `json:"field"` // such as packages[cart].version; list elements by name where they have one
	Old   json.RawMessage `json:"old,omitempty"`
	New   json.RawMessage `json:"new,omitempty"`
}

// String is the change in one line.
func (f FieldChange) String() string {
	switch {
	case f.Old == nil:
		return fmt.Sprintf("+ %s: %s", f.Field, f.New)
	case f.New == nil:
		return fmt.Sprintf("- %s: %s", f.Field, f.Old)
	}
	return fmt.Sprintf("~ %s: %s -> %s", f.Field, f.Old, f.New)
}

// diff lists the fields in which two objects of one kind differ, in path order; either may be nil.
func diff(old, new Object) []FieldChange {
	before, after := map[string]string{}, map[string]string{}
	if old != nil {
		flatten("", tree(old), before)
	}
	if new != nil {
		flatten("", tree(new), after)
	}
	var changes []FieldChange
	for _, field := range sortedKeys(before) {
		was := before[field]
		is, ok := after[field]
		switch {
		case !ok:
			changes = append(changes, FieldChange{Field: field, Old: json.RawMessage(was)})
		case is != was:
			changes = append(changes, FieldChange{Field: field, Old: json.RawMessage(was), New: json.RawMessage(is)})
		}
	}
	for field, is := range after {
		if _, ok := before[field]; !ok {
			changes = append(changes, FieldChange{Field: field, New: json.RawMessage(is)})
		}
	}
	slices.SortFunc(changes, func(a, b FieldChange) int { return strings.Compare(a.Field, b.Field) })
	return changes
}

// tree is an object as plain maps and lists, without what the DB itself keeps in it.
func tree(o Object) any {
	data, err := json.Marshal(o)
	if err != nil {
		return map[string]any{"error": err.Error()} // no field of an Object can fail to marshal
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var m map[string]any
	if err := decoder.Decode(&m); err != nil {
		return map[string]any{"error": err.Error()}
	}
	delete(m, "meta")
	delete(m, "name")
	return m
}

// flatten writes every leaf below v under its path.
func flatten(path string, v any, into map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for key, element := range v {
			if path != "" {
				key = path + "." + key
			}
			flatten(key, element, into)
		}
	case []any:
		for i, element := range v {
			flatten(path+"["+elementName(v, i)+"]", element, into)
		}
	default:
		leaf, _ := json.Marshal(v) // a leaf that was just unmarshalled
		into[path] = string(leaf)
	}
}

// elementName is what tells an element of a list from the others, so that an insertion is one line of a
// diff and not a change of all that follow.
func elementName(list []any, i int) string {
	m, ok := list[i].(map[string]any)
	if !ok {
		return strconv.Itoa(i)
	}
	for _, key := range []string{"name", "id", "path", "port", "template", "source"} {
		if v, ok := m[key]; ok {
			return fmt.Sprint(v)
		}
	}
	return strconv.Itoa(i)
}
