// Package uid makes identifiers that are never made twice, on any machine. This file alone knows the library behind
// it; a test of the repository says so.
package uid

import "github.com/google/uuid"

// New returns a random identifier: 36 characters of a-f, 0-9 and "-".
func New() string { return uuid.NewString() }

// Ordered returns an identifier of the same form that sorts by the time it was made, those of one process strictly so
// (RFC 9562, version 7).
func Ordered() (string, error) {
	id, err := uuid.NewV7()
	return id.String(), err
}
