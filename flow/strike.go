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
		slices.SortStableFunc(out, longest)
	}
	return out
}

// longest sorts the longest first.
func longest(a, b string) int { return len(b) - len(a) }

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

// strike strikes all looks out of a text. Where several match, the first in the text wins, and of those that begin there the longest.
func strike(text string, looks []string) string {
	switch len(looks) {
	case 0:
		return text
	case 1:
		return strings.ReplaceAll(text, looks[0], struckOut)
	}
	pairs := make([]string, 0, 2*len(looks))
	for _, look := range looks { // the longest first: that is the order in which they are compared
		pairs = append(pairs, look, struckOut)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// struckEnd strikes secrets out of the end of a log, also one of which the cut has left no more than the end.
func struckEnd(text string, secrets []string) string {
	all := looks(secrets)
	if body, cut := strings.CutPrefix(text, cutMark); cut {
		body = strings.TrimLeft(body, "?") // of a letter that was cut
		most := 0
		for _, look := range all {
			n := min(len(look)-1, len(body))
			for n > 0 && !strings.HasPrefix(body, look[len(look)-n:]) {
				n--
			}
			most = max(most, n)
		}
		if most > 0 {
			text = cutMark + struckOut + body[most:]
		}
	}
	return strike(text, all)
}

// struckBeginning strikes secrets out of the beginning of a text, also one of which no more than the beginning is there.
func struckBeginning(text string, secrets []string) string {
	var out strings.Builder
	w := newStriker(&out, secrets)
	_, _ = w.Write([]byte(text)) // to memory: never fails
	return out.String()          // what is held back may be a part of one
}

// striker strikes secrets out of a text that comes in pieces, as strike does out of a whole one. What may be the beginning of a look is held back until it is
// known how it goes on. It is not safe for concurrent use.
type striker struct {
	to     io.Writer
	looks  [][]byte  // of the secrets, the longest first
	begins [256]bool // the bytes with which they begin
	held   []byte
}

// newStriker returns a writer to w that strikes the secrets out, as they look in texts.
func newStriker(w io.Writer, secrets []string) *striker {
	s := &striker{to: w}
	for _, look := range looks(secrets) {
		s.looks = append(s.looks, []byte(look))
		s.begins[look[0]] = true
	}
	return s
}

// Write implements io.Writer.
func (s *striker) Write(p []byte) (int, error) {
	if len(s.looks) == 0 {
		return s.to.Write(p)
	}
	if err := s.pass(append(s.held, p...), false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// pass writes what is known of the data not to be a secret; nothing comes behind it if it is the last.
func (s *striker) pass(data []byte, last bool) error {
	out := make([]byte, 0, len(data)+len(struckOut))
	at := 0
	for at < len(data) {
		if !s.begins[data[at]] {
			out = append(out, data[at])
			at++
			continue
		}
		rest := data[at:]
		if !last && s.open(rest) {
			break
		}
		if n := s.match(rest); n > 0 {
			out = append(out, struckOut...)
			at += n
			continue
		}
		out = append(out, data[at])
		at++
	}
	s.held = slices.Clone(data[at:])
	if len(out) == 0 {
		return nil
	}
	_, err := s.to.Write(out)
	return err
}

// open reports whether what comes may make a look of all that is there.
func (s *striker) open(rest []byte) bool {
	return slices.ContainsFunc(s.looks, func(look []byte) bool { return len(rest) < len(look) && bytes.HasPrefix(look, rest) })
}

// match returns the length of the longest look with which a text begins, or 0.
func (s *striker) match(rest []byte) int {
	for _, look := range s.looks {
		if bytes.HasPrefix(rest, look) {
			return len(look)
		}
	}
	return 0
}

// Close writes what is held back: nothing comes any more that would make more of it.
func (s *striker) Close() error {
	held := s.held
	s.held = nil
	if len(held) == 0 {
		return nil
	}
	return s.pass(held, true)
}
