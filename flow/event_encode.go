package flow

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"
)

// encodeEvents writes the events of one transition as a JSON list, without what its record says anyway. It writes what json.Marshal would: by hand,
// because every step of every execution passes here.
func encodeEvents(events []Event) []byte {
	size := 2
	for i := range events {
		e := &events[i]
		size += 80 + len(e.Step) + len(e.Tool) + len(e.Device) + len(e.Input) + len(e.Output) + len(e.Logs)
	}
	b := append(make([]byte, 0, size), '[')
	for i := range events {
		if i > 0 {
			b = append(b, ',')
		}
		b = events[i].encode(b)
	}
	return append(b, ']')
}

func (e *Event) encode(b []byte) []byte {
	b = append(b, `{"kind":`...)
	b = appendText(b, string(e.Kind))
	b = textField(b, `,"step":`, e.Step)
	b = intField(b, `,"item":`, e.Item)
	b = intField(b, `,"items":`, e.Items)
	b = textField(b, `,"signal":`, e.Signal)
	b = textField(b, `,"id":`, e.ID)
	b = textField(b, `,"case":`, e.Case)
	b = intField(b, `,"attempt":`, e.Attempt)
	if e.Again {
		b = append(b, `,"again":true`...)
	}
	b = textField(b, `,"device":`, e.Device)
	b = textField(b, `,"tool":`, e.Tool)
	b = rawField(b, `,"input":`, e.Input)
	b = rawField(b, `,"output":`, e.Output)
	if e.Error != nil {
		b = rawField(b, `,"error":`, mustJSON(e.Error))
	}
	b = textField(b, `,"logs":`, e.Logs)
	if e.Ran != (Ran{}) {
		b = rawField(b, `,"ran":`, mustJSON(e.Ran))
	}
	if !e.RetryAt.IsZero() {
		b = append(b, `,"retry_at":"`...)
		b = append(e.RetryAt.AppendFormat(b, time.RFC3339Nano), '"')
	}
	b = textField(b, `,"target":`, string(e.Target))
	b = textField(b, `,"actor":`, e.Actor)
	b = textField(b, `,"reason":`, e.Reason)
	b = textField(b, `,"text":`, e.Text)
	b = textField(b, `,"severity":`, e.Severity)
	b = textField(b, `,"lock":`, e.Lock)
	b = textsField(b, `,"keys":`, e.Keys)
	b = textsField(b, `,"hidden":`, e.Hidden)
	b = textField(b, `,"flow":`, e.Flow)
	b = intField(b, `,"version":`, e.Version)
	b = textField(b, `,"key":`, e.Key)
	b = textField(b, `,"parent":`, e.Parent)
	if len(e.Params) > 0 {
		b = rawField(b, `,"params":`, mustJSON(e.Params))
	}
	b = textField(b, `,"root":`, e.Root)
	b = textField(b, `,"exempt":`, e.Exempt)
	b = textsField(b, `,"as":`, e.As)
	return append(b, '}')
}

func textField(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	return appendText(append(b, name...), text)
}

func textsField(b []byte, name string, texts []string) []byte {
	if len(texts) == 0 {
		return b
	}
	return append(append(b, name...), mustJSON(texts)...)
}

func intField(b []byte, name string, n int) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendInt(append(b, name...), int64(n), 10)
}

// rawField writes JSON that is there already, as it is. What is not JSON would make the whole history unreadable, and null takes its place.
func rawField(b []byte, name string, raw json.RawMessage) []byte {
	if len(raw) == 0 {
		return b
	}
	b = append(b, name...)
	if !json.Valid(raw) {
		return append(b, "null"...)
	}
	return append(b, raw...)
}

// appendText writes a JSON string.
func appendText(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return append(b, mustJSON(text)...)
		}
	}
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"')
}

// appendValue writes a value of an expression as json.Marshal would.
func appendValue(b []byte, value any) ([]byte, error) {
	switch v := value.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case string:
		return appendText(b, v), nil
	case map[string]any:
		b = append(b, '{')
		names := make([]string, 0, 16)
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		for i, name := range names {
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			if b, err = appendValue(append(appendText(b, name), ':'), v[name]); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	case []any:
		b = append(b, '[')
		for i, item := range v {
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			if b, err = appendValue(b, item); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	}
	data, err := json.Marshal(value)
	return append(b, data...), err
}
