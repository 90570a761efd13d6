package flow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// looks are what secrets look like in texts: as they are, and as programs in other languages write them into JSON, which escape more than they must (a
// slash, a letter that is not ASCII) or less. The longest comes first: one may be a part of another. Secrets of less than four bytes stand in many other
// texts, and are left out.
func looks(secrets []string) []string {
	var out []string
	for _, secret := range secrets {
		if len(secret) < 4 {
			continue
		}
		out = append(out, secret)
		if plainASCII(secret) {
			continue
		}
		quoted := inJSON(secret, false)
		pure := asciiJSON(quoted)
		for _, look := range []string{inJSON(secret, true), quoted, pure, strings.ReplaceAll(quoted, "/", `\/`), strings.ReplaceAll(pure, "/", `\/`)} {
			if !slices.Contains(out, look) {
				out = append(out, look)
			}
		}
	}
	if len(out) > 1 {
		slices.SortStableFunc(out, func(a, b string) int { return len(b) - len(a) })
	}
	return out
}

// plainASCII reports whether a text looks the same in the JSON of every program.
func plainASCII(text string) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '/' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

// inJSON is a text as it stands between the quotes of JSON; html escapes what HTML would read.
func inJSON(text string, html bool) string {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(html)
	if encoder.Encode(text) != nil { // a text has a form always
		return text
	}
	return out.String()[1 : out.Len()-2] // and there is a newline behind it
}

// asciiJSON escapes what is not ASCII.
func asciiJSON(text string) string {
	var out strings.Builder
	for _, r := range text {
		switch high, low := utf16.EncodeRune(r); {
		case r < utf8.RuneSelf:
			out.WriteRune(r)
		case high == utf8.RuneError:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		}
	}
	return out.String()
}

// striker strikes secrets out of a text that comes in pieces. What may be the beginning of a secret is held back until it is
// known not to be one. It is not safe for concurrent use.
type striker struct {
	to      io.Writer
	secrets [][]byte // as they look
	held    []byte
}

// newStriker returns a writer to w that strikes the secrets out, as they look in texts.
func newStriker(w io.Writer, secrets []string) *striker {
	s := &striker{to: w}
	for _, look := range looks(secrets) {
		s.secrets = append(s.secrets, []byte(look))
	}
	return s
}

// Write implements io.Writer.
func (s *striker) Write(p []byte) (int, error) {
	if len(s.secrets) == 0 {
		return s.to.Write(p)
	}
	data := append(s.held, p...)
	for _, secret := range s.secrets {
		data = bytes.ReplaceAll(data, secret, []byte(struckOut))
	}
	keep := s.begun(data)
	s.held = slices.Clone(data[len(data)-keep:])
	if _, err := s.to.Write(data[:len(data)-keep]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// begun returns how many of the last bytes of data may be the beginning of a secret.
func (s *striker) begun(data []byte) int {
	most := 0
	for _, secret := range s.secrets {
		for n := min(len(secret)-1, len(data)); n > most; n-- {
			if bytes.HasPrefix(secret, data[len(data)-n:]) {
				most = n
				break
			}
		}
	}
	return most
}

// Close writes what is held back: nothing comes any more that would make it a secret.
func (s *striker) Close() error {
	held := s.held
	s.held = nil
	if len(held) == 0 {
		return nil
	}
	_, err := s.to.Write(held)
	return err
}
