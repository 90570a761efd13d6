package device

import (
	"encoding/json"
	"reflect"
)

// SchemaOf is the schema of an output.
func SchemaOf[Out any]() json.RawMessage { return schema(reflect.TypeFor[Out](), false) }

// Reached has f hear of each moment at which a kill would leave something half done.
func Reached(f func()) { reached = f }

// Plant plants a fault that the tests have to find.
func Plant(fault string) { planted = fault }
