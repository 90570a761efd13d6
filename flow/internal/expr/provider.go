package expr

import (
	"maps"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// provider teaches CEL's checker the object types of one environment. A type is named after the path at which it
// was met, in braces, so that the name can never be mistaken for an identifier. Values of these types are plain
// maps: without accessors in the field types, CEL selects from them as from any map.
type provider struct {
	types.Provider
	objects map[string]*Schema
}

func (p *provider) FindStructType(name string) (*types.Type, bool) {
	if _, found := p.objects[name]; found {
		return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
	}
	return p.Provider.FindStructType(name)
}

func (p *provider) FindStructFieldNames(name string) ([]string, bool) {
	if object, found := p.objects[name]; found {
		return slices.Sorted(maps.Keys(object.Properties)), true
	}
	return p.Provider.FindStructFieldNames(name)
}

func (p *provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	object, found := p.objects[name]
	if !found {
		return p.Provider.FindStructFieldType(name, field)
	}
	property, found := object.Properties[field]
	if !found {
		if !object.Open {
			return nil, false
		}
		// Its objects would have no registered name: they stay dynamic.
		if property = object.Extra; property != nil && (property.Type == "object" || property.Type == "array") {
			property = Any
		}
	}
	return &types.FieldType{Type: p.celType(name[1:len(name)-1]+"."+field, property)}, true
}

// celType returns the checker's type for a schema met at path.
func (p *provider) celType(path string, s *Schema) *cel.Type {
	if s == nil {
		return cel.DynType
	}
	switch s.Type {
	case "string":
		return cel.StringType
	case "integer":
		return cel.IntType
	case "number":
		return cel.DoubleType
	case "boolean":
		return cel.BoolType
	case "array":
		return cel.ListType(p.celType(path+"[]", s.Items))
	case "object":
		if len(s.Properties) == 0 && s.Open {
			return cel.MapType(cel.StringType, p.celType(path+"[]", s.Extra))
		}
		return cel.ObjectType("{" + path + "}")
	}
	return cel.DynType
}

// register makes the object types below a schema known.
func (p *provider) register(path string, s *Schema) {
	switch {
	case s == nil:
	case s.Type == "array":
		p.register(path+"[]", s.Items)
	case s.Type == "object" && len(s.Properties) == 0 && s.Open:
		p.register(path+"[]", s.Extra)
	case s.Type == "object":
		p.objects["{"+path+"}"] = s
		for name, property := range s.Properties {
			p.register(path+"."+name, property)
		}
	}
}

// schema turns a checked type back into a schema.
func (p *provider) schema(t *cel.Type) *Schema {
	switch t.Kind() {
	case types.StringKind, types.DurationKind, types.TimestampKind, types.BytesKind:
		return String
	case types.IntKind, types.UintKind:
		return Integer
	case types.DoubleKind:
		return Number
	case types.BoolKind:
		return Boolean
	case types.ListKind:
		return List(p.schema(t.Parameters()[0]))
	case types.MapKind:
		return Map(p.schema(t.Parameters()[1]))
	case types.StructKind:
		if s, found := p.objects[t.TypeName()]; found {
			return s
		}
		if outer, layered := p.Provider.(*provider); layered {
			return outer.schema(t)
		}
	}
	return Any
}
