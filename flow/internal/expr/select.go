package expr

import (
	"slices"

	"cel.dev/cel-go/common/ast"
)

// selection returns the variable and the fields of an expression that selects and does nothing else, as nearly all do that hand a step's output on; nil for
// any other.
func selection(e ast.Expr) (path []string) {
	for ; e.Kind() == ast.SelectKind; e = e.AsSelect().Operand() {
		if e.AsSelect().IsTestOnly() {
			return nil
		}
		path = append(path, e.AsSelect().FieldName())
	}
	if e.Kind() != ast.IdentKind {
		return nil
	}
	path = append(path, e.AsIdent())
	slices.Reverse(path)
	return path
}

// lookUp walks a path to a scalar. Anything else, and what is not there, is for CEL to say.
func lookUp(vars map[string]any, path []string) (value any, ok bool) {
	if len(path) == 0 {
		return nil, false
	}
	value = vars
	for _, name := range path {
		fields, isMap := value.(map[string]any)
		if !isMap {
			return nil, false
		}
		if value, ok = fields[name]; !ok {
			return nil, false
		}
	}
	switch value.(type) {
	case string, bool, int64, float64:
		return value, true
	}
	return nil, false
}
