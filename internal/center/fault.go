package center

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"
	"unicode"
)

var (
	// ErrInvalid matches every *FaultError: the input itself is wrong, and nothing was changed.
	ErrInvalid = errors.New("center: invalid input")
	// ErrNotFound says that what was named does not exist.
	ErrNotFound = errors.New("center: not found")
	// ErrTaken says that the key or version already stands for something else.
	ErrTaken = errors.New("center: already taken by something else")
	// ErrContended says that too many writers changed one record at once.
	ErrContended = errors.New("center: too many writers on one record; try again")
)

// FaultError is a bad input: the field, the value it has, and what to do.
type FaultError struct {
	Field string
	Value string
	Mend  string
}

func (e *FaultError) Error() string {
	return fmt.Sprintf("center: %s %q: %s", e.Field, e.Value, e.Mend)
}

// Is makes errors.Is(err, ErrInvalid) true.
func (e *FaultError) Is(target error) bool { return target == ErrInvalid }

func fault(field string, value any, mend string, args ...any) error {
	return &FaultError{Field: field, Value: clip(fmt.Sprint(value)), Mend: fmt.Sprintf(mend, args...)}
}

// clip bounds what an error repeats of its input.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

var (
	namePattern    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	versionPattern = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._+-]{0,63}$`)
	paramPattern   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,7}$`)
)

// IsName says whether a text can be the name of a module, a device or a kind of notice: letters, digits, '.', '_' and '-', at most 128.
func IsName(text string) bool { return namePattern.MatchString(text) }

func checkName(field, value string) error {
	if !IsName(value) {
		return fault(field, value, "give a name of letters, digits, '.', '_' and '-', at most 128 long, as in shop.cart")
	}
	return nil
}

func checkVersion(field, value string) error {
	if !versionPattern.MatchString(value) {
		return fault(field, value, "give a version of letters, digits, '.', '_', '+' and '-', at most 64 long, as in 1.4.0")
	}
	return nil
}

// checkKey takes any printable key: keys are made by engines, not by people.
func checkKey(field, value string) error {
	if value == "" || len(value) > 256 || strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fault(field, value, "give 1 to 256 printable characters; the same key names the same act")
	}
	return nil
}

// checkPath takes a slash-separated path that stays below the folder it is used in.
// maxFileName is what file systems take for one name of a path.
const maxFileName = 255

func checkPath(field, value string) error {
	if value == "" || len(value) > 1024 || strings.ContainsAny(value, "\x00\\\n\r") || path.Clean(value) != value ||
		path.IsAbs(value) || value == "." || value == ".." || strings.HasPrefix(value, "../") {
		return fault(field, value, "give a clean relative path with '/', without '..', at most 1024 bytes, as in conf/site.map")
	}
	for name := range strings.SplitSeq(value, "/") {
		if len(name) > maxFileName {
			return fault(field, value, "the name %q... has %d bytes; file systems take at most %d", name[:40], len(name), maxFileName)
		}
	}
	return nil
}

func checkActor(value string) error {
	if value == "" || len(value) > 128 || strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fault("actor", value, "say who asks: a person, or scale, gray, drift, flow")
	}
	return nil
}

func checkDetail(field string, value json.RawMessage) error {
	if len(value) > 64<<10 {
		return fault(field, fmt.Sprintf("%d bytes", len(value)), "keep it below 64 KiB")
	}
	if len(value) > 0 && !json.Valid(value) {
		return fault(field, string(value), "give valid JSON")
	}
	return nil
}

// MaxMute bounds mutes and silences: one that outlives the flow that forgot it must end by itself.
const MaxMute = 7 * 24 * time.Hour

func checkUntil(field string, now, until time.Time) error {
	if !until.After(now) {
		return fault(field, until.Format(time.RFC3339), "give a time after now, %s", now.Format(time.RFC3339))
	}
	if until.Sub(now) > MaxMute {
		return fault(field, until.Format(time.RFC3339), "give a time at most %v from now", MaxMute)
	}
	return nil
}
