package cmdb

import (
	"encoding"
	"reflect"
	"strings"
)

// Field describes one field of a kind's documents.
type Field struct {
	Path  string `json:"path"` // such as packages[].version
	Type  string `json:"type"` // text, number, whole number, yes or no, duration, time
	Layer Layer  `json:"layer"`
	Set   bool   `json:"set"` // false: the DB's own, which no document changes
}

// Fields lists the fields of a kind in their order, from which tables, help and forms can be made.
func Fields(kind Kind) ([]Field, error) {
	object, err := newObject(kind)
	if err != nil {
		return nil, err
	}
	t := reflect.TypeOf(object).Elem()
	var out []Field
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "meta" {
			continue
		}
		layer := kindTable[kindOrder(kind)].layer
		if tag := t.Field(i).Tag.Get("layer"); tag != "" {
			layer = Layer(tag)
		}
		set := t.Field(i).Tag.Get("life") == ""
		describe(t.Field(i).Type, name, func(path, what string) {
			out = append(out, Field{Path: path, Type: what, Layer: layer, Set: set})
		})
	}
	return out, nil
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

func describe(t reflect.Type, path string, found func(path, what string)) {
	switch {
	case t == reflect.TypeFor[Duration]():
		found(path, "duration")
		return
	case reflect.PointerTo(t).Implements(textUnmarshaler):
		found(path, "time")
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		describe(t.Elem(), path, found)
	case reflect.Slice:
		describe(t.Elem(), path+"[]", found)
	case reflect.Map:
		describe(t.Elem(), path+".KEY", found)
	case reflect.Struct:
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			describe(t.Field(i).Type, path+"."+name, found)
		}
	case reflect.Bool:
		found(path, "yes or no")
	case reflect.Float64:
		found(path, "number")
	case reflect.Int, reflect.Int64:
		found(path, "whole number")
	default:
		found(path, "text")
	}
}
