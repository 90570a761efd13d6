package rpc

import (
	"context"
	"strings"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
)

// minShort is how much of an ID has to be given.
const minShort = 4

// MostSaid bounds how many are listed that a beginning is short for.
const MostSaid = 10

// Candidate is something by its ID, with what tells it from others.
type Candidate struct{ ID, Text string }

// Whole returns the ID that given is the beginning of. It is given itself if that is an ID, or if no ID begins so: the call then says what it says of
// one that is not there. Several are an error that lists them. Only people shorten IDs: what tools and agents name they know whole, and the key of one
// of their acts may begin as another's does.
func Whole(ctx context.Context, what, given string, beginning func() ([]Candidate, error)) (string, error) {
	if id, proved := auth.From(ctx); len(given) < minShort || proved && id.Role != auth.Operator && id.Role != auth.Viewer {
		return given, nil
	}
	all, err := beginning()
	if err != nil {
		return "", err
	}
	var fits []Candidate
	for _, one := range all {
		if one.ID == given {
			return given, nil
		}
		if strings.HasPrefix(one.ID, given) {
			fits = append(fits, one)
		}
	}
	switch len(fits) {
	case 0:
		return given, nil
	case 1:
		return fits[0].ID, nil
	}
	var lines strings.Builder
	for i, one := range fits {
		if i == MostSaid {
			lines.WriteString("\n  ... and more")
			break
		}
		lines.WriteString("\n  " + one.ID + "  " + one.Text)
	}
	return "", Invalid(what, given, "it is the beginning of several; give more of the one that is meant:"+lines.String())
}
