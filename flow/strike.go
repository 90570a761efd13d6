package flow

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
)

// striker strikes secrets out of a text that comes in pieces. What may be the beginning of a secret is held back until it is
// known not to be one. It is not safe for concurrent use.
type striker struct {
	to      io.Writer
	secrets [][]byte // and what they look like in JSON
	held    []byte
}

// newStriker returns a writer to w; without secrets that is w itself. Secrets of less than four bytes stand in many other texts,
// and are left alone: see redact.
func newStriker(w io.Writer, secrets []string) *striker {
	s := &striker{to: w}
	for _, secret := range secrets {
		if len(secret) < 4 {
			continue
		}
		s.secrets = append(s.secrets, []byte(secret))
		if quoted, err := json.Marshal(secret); err == nil && string(quoted[1:len(quoted)-1]) != secret {
			s.secrets = append(s.secrets, quoted[1:len(quoted)-1])
		}
	}
	// The longest first: one may be the beginning of another.
	slices.SortFunc(s.secrets, func(a, b []byte) int { return len(b) - len(a) })
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
