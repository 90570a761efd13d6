package rule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Limits of a document: what is compiled for a call to be decided in nanoseconds stays small.
const (
	MaxRoutes       = 64      // routes of a document
	MaxDestinations = 16      // destinations of a route
	MaxConditions   = 64      // different conditions on labels of a request, in all routes together
	MaxIsolated     = 10_000  // isolated instances
	MaxBytes        = 1 << 20 // of a document
	maxText         = 128     // bytes of a key, a value or a name
	maxWeight       = 1_000_000
)

// ErrInvalid is what errors of Parse and Check match.
var ErrInvalid = errors.New("l5/rule")

// Rules are what the operator of a service has said about calls to it. The zero value says nothing.
type Rules struct {
	Settings
	// Routes are tried in order; the first that matches decides.
	Routes []Route `json:"routes,omitempty"`
	// Isolate takes all calls from the instances at these addresses, which stay registered, and says why.
	Isolate map[string]string `json:"isolate,omitempty"`
}

// Settings say how instances are chosen where no route says otherwise. A zero field says nothing: a service's settings
// come from the caller's program, then the service's document, then the program's default, field by field (Over).
type Settings struct {
	// Policy names how one candidate is picked for a call (balance.Policy). Default: the client's.
	Policy string `json:"policy,omitempty"`
	// Locality prefers instances that are near.
	Locality Locality `json:"locality,omitzero"`
	// Subset is how many instances of each level of locality one process calls: it bounds the connections of large
	// fan-outs. Default: all of them.
	Subset int `json:"subset,omitempty"`
}

// Over returns s with its zero fields taken from below.
func (s Settings) Over(below Settings) Settings {
	if s.Policy == "" {
		s.Policy = below.Policy
	}
	if s.Locality.Prefer == "" {
		s.Locality.Prefer = below.Locality.Prefer
	}
	if s.Locality.Spare == 0 {
		s.Locality.Spare = below.Locality.Spare
	}
	if s.Locality.Demand == nil {
		s.Locality.Demand = below.Locality.Demand
	}
	if s.Subset == 0 {
		s.Subset = below.Subset
	}
	return s
}

// Route sends the calls that match to destinations.
type Route struct {
	// Name is unique in the document; explanations use it. Required.
	Name  string `json:"name"`
	Match Match  `json:"match,omitzero"`
	// To splits the calls. A destination none of whose instances takes calls leaves its part to the others.
	To []Destination `json:"to"`
	// Fallback says what becomes of the calls when no destination has an instance that takes calls. Default: FallbackAny.
	Fallback Fallback `json:"fallback,omitempty"`
}

// Match holds if all of its conditions hold; one that is left out always does. Each is a list of which one must hold.
type Match struct {
	Callers      []string            `json:"callers,omitempty"` // the caller's module; a trailing * stands for any rest
	Devices      []string            `json:"devices,omitempty"` // the caller's device
	Sites        []string            `json:"sites,omitempty"`   // the caller's site
	Cities       []string            `json:"cities,omitempty"`  // the caller's city
	CallerLabels map[string][]string `json:"caller_labels,omitempty"`
	// Labels are the call's own, by key; "*" stands for any value.
	Labels map[string][]string `json:"labels,omitempty"`
}

// Destination is a set of instances and the part of the calls that it gets.
type Destination struct {
	// Select names labels that an instance must have. The keys "@addr", "@device", "@module", "@site" and "@city" are what
	// it was registered with. The value "@caller" stands for what the caller has under the same key. None selects all.
	Select map[string]string `json:"select,omitempty"`
	// Weight is the part of the calls against the sum of all weights of the route. If all are left out, parts are equal.
	Weight int `json:"weight,omitempty"`
}

// Fallback says what becomes of calls whose destinations take none.
type Fallback string

const (
	FallbackAny  Fallback = "any"  // all instances of the service are candidates
	FallbackFail Fallback = "fail" // the call is refused
)

// Parse reads a document strictly: all that is wrong with it is reported, each fault with field, value and what would
// be right, and nothing is used.
func Parse(data []byte) (Rules, error) {
	var r Rules
	if len(data) > MaxBytes {
		return Rules{}, fmt.Errorf("%w: the document has %d bytes: want at most %d", ErrInvalid, len(data), MaxBytes)
	}
	if err := decode(data, &r, true); err != nil {
		return Rules{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := r.Check(); err != nil {
		return Rules{}, err
	}
	return r, nil
}

// Read reads a document that a newer version may have written: fields it does not know are skipped, but a route or
// setting with one that it does not know or that is wrong is left out, and faults says so: a rule that is half
// understood would match what it should not. It never fails: of what is no document, nothing is used.
func Read(data []byte) (r Rules, faults []error) {
	if len(data) == 0 {
		return Rules{}, nil
	}
	if len(data) > MaxBytes {
		return Rules{}, []error{fmt.Errorf("%w: the document has %d bytes: want at most %d", ErrInvalid, len(data), MaxBytes)}
	}
	var loose struct {
		Policy   string            `json:"policy"`
		Locality json.RawMessage   `json:"locality"`
		Subset   int               `json:"subset"`
		Routes   []json.RawMessage `json:"routes"`
		Isolate  map[string]string `json:"isolate"`
	}
	if err := decode(data, &loose, false); err != nil {
		return Rules{}, []error{fmt.Errorf("%w: %w", ErrInvalid, err)}
	}
	r.Policy, r.Subset, r.Isolate = loose.Policy, max(loose.Subset, 0), loose.Isolate
	if len(loose.Locality) > 0 {
		var l Locality
		err := decode(loose.Locality, &l, true)
		if err == nil {
			err = errors.Join(l.check("locality")...)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%w: locality is left out: %w", ErrInvalid, err))
		} else {
			r.Locality = l
		}
	}
	for i, raw := range loose.Routes {
		var route Route
		err := decode(raw, &route, true)
		if err == nil {
			next := r
			next.Routes = append(slices.Clone(r.Routes), route)
			err = next.Check()
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%w: routes[%d] is left out: %w", ErrInvalid, i, err))
			continue
		}
		r.Routes = append(r.Routes, route)
	}
	return r, faults
}

// decode reads exactly one JSON value.
func decode(data []byte, into any, strict bool) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if strict {
		d.DisallowUnknownFields()
	}
	err := d.Decode(into)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("line %d: %w: want a JSON document", 1+bytes.Count(data[:min(int(syntax.Offset), len(data))], []byte("\n")), err)
	case err != nil:
		return fmt.Errorf("not a document of rules: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the document: want one JSON value")
	}
	return nil
}
