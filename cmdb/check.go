package cmdb

import (
	"cmp"
	"maps"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	second = time.Second
	minute = time.Minute
)

// Duration is a time.Duration that documents write as text, such as 1m30s.
type Duration time.Duration

// String implements fmt.Stringer.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// checker gathers the faults of one object.
type checker struct {
	report func(field, value, problem, mend string)
}

func (c *checker) fault(field, value, problem, mend string) { c.report(field, value, problem, mend) }

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?$`)

func (c *checker) name(field, value string) {
	if !namePattern.MatchString(value) {
		c.fault(field, value, "is not a name", "use 1 to 128 of a-z 0-9 . _ - and begin and end with a letter or digit")
	}
}

func (c *checker) required(field, value string) {
	if strings.TrimSpace(value) == "" {
		c.fault(field, value, "is empty", "give a value")
	}
}

func (c *checker) between(field string, value, low, high int) {
	if value < low || value > high {
		c.fault(field, strconv.Itoa(value), "is out of range", "give a number from "+strconv.Itoa(low)+" to "+strconv.Itoa(high))
	}
}

func (c *checker) port(field string, value int) { c.between(field, value, 1, 65535) }

func (c *checker) positive(field string, value Duration) {
	if value <= 0 {
		c.fault(field, value.String(), "is not above zero", "give a duration such as 30s")
	}
}

func (c *checker) oneOf(field, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		c.fault(field, value, "is unknown", "use one of "+strings.Join(allowed, ", "))
	}
}

// path refuses what could leave the device's root.
func (c *checker) path(field, value string) {
	clean := path.Clean("/" + value)
	if value == "" || clean == "/" || strings.ContainsRune(value, 0) || slices.Contains(strings.Split(value, "/"), "..") {
		c.fault(field, value, "is not a path below the device's root", "give a path without .. elements")
	}
}

func (c *checker) mode(field, value string) {
	if n, err := strconv.ParseUint(value, 8, 32); err != nil || n > 0o7777 {
		c.fault(field, value, "is not a file mode", "give it in octal, such as 0644")
	}
}

func (c *checker) labels(field string, labels map[string]string) {
	for _, key := range sortedKeys(labels) {
		if key == "" || len(key) > 128 || len(labels[key]) > 1024 {
			c.fault(field+"."+key, labels[key], "is not a label", "use a key of 1 to 128 bytes and a value of at most 1024")
		}
	}
}

// unique reports elements of a list that say the same key.
func unique[T any](c *checker, field string, list []T, key string, of func(T) string) {
	seen := make(map[string]int, len(list))
	for i, element := range list {
		k := of(element)
		if first, twice := seen[k]; twice && k != "" {
			c.fault(at(field, i, key), k, "is there twice, first at "+strconv.Itoa(first), "keep one of them")
			continue
		}
		seen[k] = i
	}
}

// at is the path of a field of a list's element.
func at(list string, i int, field string) string {
	s := list + "[" + strconv.Itoa(i) + "]"
	if field != "" {
		s += "." + field
	}
	return s
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func defaultTo[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// Bounds of what a document may say.
const (
	maxText = 4096   // bytes of one text
	maxList = 10_000 // elements of one list or map
)

// bounded reports every text, list and map of an object that is longer than it may be, by its field.
func (c *checker) bounded(object any) { c.boundedValue("", reflect.ValueOf(object)) }

func (c *checker) boundedValue(field string, v reflect.Value) {
	tooMany := func(n int) bool {
		if n > maxList {
			c.fault(field, strconv.Itoa(n)+" elements", "is too long", "give at most "+strconv.Itoa(maxList))
		}
		return n > maxList
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			c.boundedValue(field, v.Elem())
		}
	case reflect.String:
		if n := v.Len(); n > maxText {
			c.fault(field, v.String()[:40]+"...", "has "+strconv.Itoa(n)+" bytes", "give at most "+strconv.Itoa(maxText))
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 || tooMany(v.Len()) {
			return
		}
		for i := range v.Len() {
			c.boundedValue(at(field, i, ""), v.Index(i))
		}
	case reflect.Map:
		if tooMany(v.Len()) {
			return
		}
		for _, key := range v.MapKeys() {
			// YAML itself takes no key of more than 1,024 bytes.
			c.boundedValue(strings.TrimPrefix(field+"."+key.String(), "."), v.MapIndex(key))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !f.IsExported() || name == "" || name == "meta" {
				continue
			}
			c.boundedValue(strings.TrimPrefix(field+"."+name, "."), v.Field(i))
		}
	}
}
