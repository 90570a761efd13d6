package cmdb

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	var a, b reflect.Value
	if old != nil {
		a = reflect.ValueOf(old).Elem()
	}
	if new != nil {
		b = reflect.ValueOf(new).Elem()
	}
	of := a
	if !of.IsValid() {
		of = b
	}
	for i, field := range fieldsOf(of.Type()) {
		switch {
		case field.name == "meta" || field.name == "name":
			continue // the DB's own; what is compared
		case a.IsValid() && b.IsValid() && reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()):
			continue
		}
		if a.IsValid() {
			flatten(field, field.name, a.Field(i), before)
		}
		if b.IsValid() {
			flatten(field, field.name, b.Field(i), after)
		}
	}
	if len(before)+len(after) == 0 {
		return nil
	}
	changes := make([]FieldChange, 0, max(len(before), len(after))) // exact for what is new, which is most of a fleet's first plan
	for field, was := range before {
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

// documentField is a struct's field as documents see it.
type documentField struct {
	name string
	omit bool // if it is zero
}

var documentFields sync.Map // reflect.Type -> []documentField; a memory of what never changes

func fieldsOf(t reflect.Type) []documentField {
	if known, ok := documentFields.Load(t); ok {
		return known.([]documentField)
	}
	fields := make([]documentField, t.NumField())
	for i := range fields {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		fields[i] = documentField{name, options != ""}
	}
	documentFields.Store(t, fields)
	return fields
}

// flatten writes every leaf of v under its path, as JSON.
func flatten(field documentField, path string, v reflect.Value, into map[string]string) {
	if field.omit && v.IsZero() {
		return
	}
	plain := documentField{}
	switch {
	case v.Type().Implements(textMarshaler):
	case v.Kind() == reflect.Pointer:
		flatten(plain, path, v.Elem(), into)
		return
	case v.Kind() == reflect.Struct:
		for i, f := range fieldsOf(v.Type()) {
			flatten(f, path+"."+f.name, v.Field(i), into)
		}
		return
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			flatten(plain, path+"["+elementName(v, i)+"]", v.Index(i), into)
		}
		return
	case v.Kind() == reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			flatten(plain, path+"."+entries.Key().String(), entries.Value(), into)
		}
		return
	}
	leaf, _ := json.Marshal(v.Interface()) // strings, numbers, times: no leaf of an Object can fail
	into[path] = string(leaf)
}

var textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()

// elementName is what tells an element of a list from the others, so that an insertion is one line of a
// diff and not a change of all that follow.
func elementName(list reflect.Value, i int) string {
	if element := list.Index(i); element.Kind() == reflect.Struct {
		fields := fieldsOf(element.Type())
		for _, key := range []string{"name", "id", "path", "port", "template", "source"} {
			at := slices.IndexFunc(fields, func(f documentField) bool { return f.name == key })
			if at >= 0 && !element.Field(at).IsZero() {
				return fmt.Sprint(element.Field(at))
			}
		}
	}
	return strconv.Itoa(i)
}
