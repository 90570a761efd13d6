package flow

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

const struckOut = "******"

// redact strikes secrets out of everything that a value would show as JSON.
func redact[T any](value T, secrets []string) T {
	if len(secrets) == 0 {
		return value
	}
	var zero T
	data, err := json.Marshal(value)
	if err != nil {
		return zero
	}
	out := value // keeps what JSON does not carry
	resetJSON(&out)
	if err := json.Unmarshal(redactJSON(data, secrets), &out); err == nil {
		return out
	}
	// A secret of digits stands in a number or a time as well: those are left alone.
	out = value
	resetJSON(&out)
	careful, err := redactTexts(data, secrets)
	if err != nil || json.Unmarshal(careful, &out) != nil {
		return zero
	}
	return out
}

// redactJSON strikes secrets out of JSON, wherever they stand.
func redactJSON(data []byte, secrets []string) []byte {
	inside := looks(secrets)
	for i, look := range inside {
		inside[i] = inJSON(look, true)
	}
	slices.SortStableFunc(inside, longest)
	text := strike(string(normalJSON(data)), inside)
	for _, secret := range secrets {
		if len(secret) < 4 { // it stands in many other texts; strike it out where it stands alone
			text = strings.ReplaceAll(text, `"`+inJSON(secret, true)+`"`, `"`+struckOut+`"`)
		}
	}
	return []byte(text)
}

// normalJSON writes the texts of JSON with the escapes that Go makes: a tool may have made others.
func normalJSON(data []byte) []byte {
	if !bytes.ContainsRune(data, '\\') {
		return data
	}
	out := make([]byte, 0, len(data))
	for len(data) > 0 {
		begin := bytes.IndexByte(data, '"')
		if begin < 0 {
			break
		}
		end := begin + 1
		for end < len(data) && data[end] != '"' {
			if data[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(data) {
			break
		}
		out = append(out, data[:begin]...)
		literal := data[begin : end+1]
		var text string
		if bytes.ContainsRune(literal, '\\') && json.Unmarshal(literal, &text) == nil {
			literal = []byte(`"` + inJSON(text, true) + `"`)
		}
		out = append(out, literal...)
		data = data[end+1:]
	}
	return append(out, data...)
}

// redactTexts strikes secrets out of the texts of JSON that are no times.
func redactTexts(data []byte, secrets []string) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	return json.Marshal(redactValue(value, secrets))
}

func redactValue(value any, secrets []string) any {
	switch v := value.(type) {
	case string:
		if _, err := time.Parse(time.RFC3339Nano, v); err == nil {
			return v
		}
		return redactText(v, secrets)
	case []any:
		for i := range v {
			v[i] = redactValue(v[i], secrets)
		}
	case map[string]any:
		for key, inner := range v {
			delete(v, key)
			v[redactText(key, secrets)] = redactValue(inner, secrets)
		}
	}
	return value
}

// resetJSON drops what unmarshalling would merge into.
func resetJSON(value any) {
	switch v := value.(type) {
	case *Execution:
		v.Params, v.Steps, v.Error, v.Output, v.vars = nil, nil, nil, nil, nil
	case *Event:
		v.Params, v.Error, v.Input, v.Output = nil, nil, nil, nil
	case *Export:
		*v = Export{}
	case *Rehearsal:
		*v = Rehearsal{}
	case *Plan:
		v.Params, v.Locks, v.Steps, v.Output = nil, nil, nil, nil
	}
}

func redactText(text string, secrets []string) string {
	text = strike(text, looks(secrets))
	if len(text) < 4 && slices.Contains(secrets, text) {
		return struckOut
	}
	return text
}

// secrets are the texts that are struck out of whatever is shown of the execution.
func (x *Execution) secrets() []string {
	own := x.def.secrets(x.Params)
	if len(x.hidden) == 0 {
		return own
	}
	return append(own, x.hidden...)
}

// hide notes what is struck out besides the secrets among the parameters: those of sub-flows, and of the versions that the execution was of.
func (x *Execution) hide(secrets []string) {
	for _, secret := range secrets {
		if !slices.Contains(x.hidden, secret) {
			x.hidden = append(x.hidden, secret)
		}
	}
}

// hands returns the secrets that an input hands to the flow that the step calls.
func (p *stepPlan) hands(input json.RawMessage) []string {
	if len(p.secret) == 0 {
		return nil
	}
	given, err := decodeParams(input)
	if err != nil {
		return nil
	}
	var out []string
	for _, name := range p.secret {
		if text, is := given[name].(string); is && text != "" {
			out = append(out, text)
		}
	}
	return out
}

// within returns those of the secrets that stand in the JSON of an output.
func within(output json.RawMessage, secrets []string) []string {
	var out []string
	output = normalJSON(output)
	for _, secret := range secrets {
		if !bytes.Equal(redactJSON(output, []string{secret}), output) {
			out = append(out, secret)
		}
	}
	return out
}

// Strike returns a text with the secrets of an execution struck out, for records of what was done to it. What cannot be struck, since the
// execution is not there, is not told at all.
func (e *Engine) Strike(ctx context.Context, id, text string) string {
	if text == "" {
		return ""
	}
	x, err := e.load(ctx, id)
	if err != nil {
		return struckOut
	}
	return redactText(text, x.secrets())
}

// exposed refuses to hand a secret to a sub-flow in a parameter that is no secret there: it would be shown.
func (e *Engine) exposed(ctx context.Context, a *action) *Error {
	if len(a.secrets) == 0 {
		return nil
	}
	name, version, err := parseCall(a.call.Tool)
	if err != nil {
		return nil // Start says what is wrong
	}
	def, err := e.definition(ctx, name, version)
	if err != nil {
		return nil
	}
	params, err := decodeParams(a.call.Input)
	if err != nil {
		return nil
	}
	for i := range def.Params {
		p := &def.Params[i]
		value, given := params[p.Name]
		if !given || p.value == nil || p.value.secret {
			continue
		}
		plain := mustJSON(value)
		if !bytes.Equal(redactJSON(plain, a.secrets), plain) {
			return failure(CodeInput, "parameter %q of flow %s would show a secret; make it of the type secret there", p.Name, name)
		}
	}
	return nil
}

// revealed are the secrets that the events of an execution tell: all that was or has become one, to be struck out wherever it stands.
type revealed struct {
	flow    string
	secrets []string
	through int64 // the last event that was read
}

// revealed reads what an execution has on record so far.
func (e *Engine) revealed(ctx context.Context, id string) (revealed, error) {
	var out revealed
	err := e.reveal(ctx, id, &out)
	return out, err
}

// reveal reads on, to the end of the record.
func (e *Engine) reveal(ctx context.Context, id string, out *revealed) error {
	for {
		records, err := e.config.Store.History(ctx, id, out.through, 256)
		if err != nil || len(records) == 0 {
			return err
		}
		for _, record := range records {
			events, err := DecodeEvents(id, record)
			if err != nil {
				return err
			}
			for i := range events {
				if err := out.add(ctx, e, &events[i]); err != nil {
					return err
				}
			}
			out.through = record.Seq + int64(len(events)) - 1
		}
	}
}

func (r *revealed) add(ctx context.Context, e *Engine, event *Event) error {
	add := event.Hidden
	if event.Kind == EventStarted || event.Kind == EventMigrated {
		if event.Flow != "" {
			r.flow = event.Flow
		}
		def, err := e.definition(ctx, r.flow, event.Version)
		if err != nil {
			return err
		}
		add = def.secrets(event.Params)
	}
	for _, secret := range add {
		if !slices.Contains(r.secrets, secret) {
			r.secrets = append(r.secrets, secret)
		}
	}
	return nil
}

func parseError(text string) *Error {
	code, message, found := strings.Cut(text, ": ")
	if !found {
		return &Error{Message: text}
	}
	return &Error{Code: code, Message: message}
}
