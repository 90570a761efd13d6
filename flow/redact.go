package flow

import (
	"encoding/json"
	"strings"
)

const struckOut = "******"

// redact strikes secrets out of everything that a value would show as JSON.
func redact[T any](value T, secrets []string) T {
	if len(secrets) == 0 {
		return value
	}
	data, err := json.Marshal(value)
	if err != nil {
		var zero T
		return zero
	}
	text := string(data)
	for _, secret := range secrets {
		quoted, err := json.Marshal(secret)
		if err != nil {
			continue
		}
		inner := string(quoted[1 : len(quoted)-1])
		if len(secret) < 4 {
			// So short a text stands in many others; strike it out where it stands alone.
			text = strings.ReplaceAll(text, `"`+inner+`"`, `"`+struckOut+`"`)
			continue
		}
		text = strings.ReplaceAll(text, inner, struckOut)
	}
	out := value // keeps what JSON does not carry
	resetJSON(&out)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		var zero T
		return zero
	}
	return out
}

// resetJSON drops what unmarshalling would merge into.
func resetJSON(value any) {
	switch v := value.(type) {
	case *Execution:
		v.Params, v.Steps, v.Error, v.Output, v.vars = nil, nil, nil, nil, nil
	case *Event:
		v.Params, v.Error, v.Input, v.Output = nil, nil, nil, nil
	case *Plan:
		v.Params, v.Locks, v.Steps, v.Output = nil, nil, nil, nil
	case *Notice:
	}
}

func redactText(text string, secrets []string) string {
	for _, secret := range secrets {
		if len(secret) >= 4 || text == secret {
			text = strings.ReplaceAll(text, secret, struckOut)
		}
	}
	return text
}

func parseError(text string) *Error {
	code, message, found := strings.Cut(text, ": ")
	if !found {
		return &Error{Message: text}
	}
	return &Error{Code: code, Message: message}
}
