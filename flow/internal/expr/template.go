package expr

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Part is a piece of a text: literal text, or the source of an expression that starts at Offset.
type Part struct {
	Text   string
	Expr   bool
	Offset int // of Text within the whole, in bytes
}

// Split cuts a text at its ${...}; $${ stands for the two characters themselves. The error's offset says where a
// ${ is not closed.
func Split(text string) (parts []Part, bad int, err error) {
	var literal strings.Builder
	for i := 0; i < len(text); {
		switch {
		case strings.HasPrefix(text[i:], "$${"):
			literal.WriteString("${")
			i += 3
		case strings.HasPrefix(text[i:], "${"):
			end := closing(text, i+2)
			if end < 0 {
				return nil, i, fmt.Errorf("this ${ has no closing }; write $${ for the characters themselves")
			}
			if literal.Len() > 0 {
				parts = append(parts, Part{Text: literal.String()})
				literal.Reset()
			}
			parts = append(parts, Part{Text: text[i+2 : end], Expr: true, Offset: i + 2})
			i = end + 1
		default:
			literal.WriteByte(text[i])
			i++
		}
	}
	if literal.Len() > 0 || len(parts) == 0 {
		parts = append(parts, Part{Text: literal.String()})
	}
	return parts, 0, nil
}

// closing finds the } that ends an expression, past braces and quoted texts within it.
func closing(text string, from int) int {
	depth := 0
	for i := from; i < len(text); i++ {
		switch c := text[i]; c {
		case '\'', '"':
			for i++; i < len(text) && text[i] != c; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '{':
			depth++
		case '}':
			if depth == 0 {
				return i
			}
			depth--
		}
	}
	return -1
}

// Text writes a value into a text.
func Text(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(data)
}
