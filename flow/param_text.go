package flow

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// FromText reads a value as a person types it, by the parameter's type: a string and a secret are the text as it stands, a list that does not begin with "["
// is its entries between commas, maps and what else has parts are JSON, and any is JSON where the text is JSON. The value is checked as Check does. A
// fault is an ErrInvalid that names the parameter, its type and the text, unless that is a secret.
func (p *Param) FromText(text string) (any, error) {
	t, err := p.typed()
	if err != nil {
		return nil, err
	}
	value, err := t.fromText(text)
	if err != nil {
		return nil, fmt.Errorf("%w: parameter %q (%s): %w", ErrInvalid, p.Name, t.name(), err)
	}
	return p.Check(value)
}

// Check returns a value in normal form if the parameter takes it: it is of its type, and within its bounds. If not, the error is an ErrInvalid.
func (p *Param) Check(value any) (any, error) {
	t, err := p.typed()
	if err != nil {
		return nil, err
	}
	whole := *p // one that was not parsed with its document has no type yet
	whole.value = t
	out, err := whole.accept(value)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return out, nil
}

func (p *Param) typed() (*valueType, error) {
	if p.value != nil {
		return p.value, nil
	}
	t, err := parseType(p.Type)
	if err != nil {
		return nil, fmt.Errorf("%w: parameter %q: %w", ErrInvalid, p.Name, err)
	}
	return t, nil
}

// fromText reads a text as the type says.
func (t *valueType) fromText(text string) (any, error) {
	wrong := func(want string) error { return fmt.Errorf("%q is no %s", text, want) }
	switch t.kind {
	case "string":
		return text, nil
	case "int":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, wrong("whole number")
		}
		return n, nil
	case "float":
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, wrong("number")
		}
		return n, nil
	case "bool":
		switch text {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, wrong("bool; want true or false")
	case "list":
		return t.listFromText(text)
	}
	switch {
	case json.Valid([]byte(text)):
		return expr.Decode([]byte(text), nil)
	case t.kind == "any":
		return text, nil
	}
	return nil, wrong("JSON object")
}

func (t *valueType) listFromText(text string) (any, error) {
	if strings.HasPrefix(text, "[") {
		if !json.Valid([]byte(text)) {
			return nil, fmt.Errorf("%q is no JSON list", text)
		}
		return expr.Decode([]byte(text), nil)
	}
	if text == "" {
		return []any{}, nil
	}
	var out []any
	for entry := range strings.SplitSeq(text, ",") {
		value, err := t.elem.fromText(strings.TrimSpace(entry))
		if err != nil {
			return nil, err
		}
		out = append(out, value)
	}
	return out, nil
}
