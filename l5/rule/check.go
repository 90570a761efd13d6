package rule

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
)

// Check reports all that is wrong with the rules: field, value, and what would be right.
func (r Rules) Check() error {
	errs := r.Settings.check()
	if len(r.Routes) > MaxRoutes {
		errs = append(errs, fmt.Errorf("routes has %d: want at most %d; join those that differ by a value only", len(r.Routes), MaxRoutes))
	}
	seen := make(map[string]int)
	conditions := make(map[string]struct{})
	for i, route := range r.Routes {
		where := fmt.Sprintf("routes[%d]", i)
		if first, ok := seen[route.Name]; ok && route.Name != "" {
			errs = append(errs, fmt.Errorf("%s.name is %q as is routes[%d].name: give each its own, explanations use it", where, route.Name, first))
		}
		seen[route.Name] = i
		errs = append(errs, route.check(where)...)
		for key, values := range route.Match.Labels {
			conditions[condition(key, values)] = struct{}{}
		}
		if i < len(r.Routes)-1 && route.Match.always() {
			errs = append(errs, fmt.Errorf("%s (%q) matches every call: routes[%d] and those after it can never be reached; put it last", where, route.Name, i+1))
		}
	}
	if len(conditions) > MaxConditions {
		errs = append(errs, fmt.Errorf("routes have %d different conditions on labels of calls: want at most %d", len(conditions), MaxConditions))
	}
	if len(r.Isolate) > MaxIsolated {
		errs = append(errs, fmt.Errorf("isolate has %d instances: want at most %d", len(r.Isolate), MaxIsolated))
	}
	for _, addr := range slices.Sorted(maps.Keys(r.Isolate)) {
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			errs = append(errs, fmt.Errorf("isolate has the address %q: want host:port or [host]:port, as it is registered", addr))
		}
		if reason := r.Isolate[addr]; strings.TrimSpace(reason) == "" || len(reason) > 4*maxText {
			errs = append(errs, fmt.Errorf("isolate[%q] has %d bytes of reason: say in 1 to %d why it takes no calls", addr, len(reason), 4*maxText))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// Check reports all that is wrong with the settings.
func (s Settings) Check() error { return errors.Join(s.check()...) }

func (s Settings) check() []error {
	errs := s.Locality.check("locality")
	if s.Subset < 0 {
		errs = append(errs, fmt.Errorf("subset is %d: want how many instances one process calls, or leave it out for all", s.Subset))
	}
	if !slices.Contains(Policies(), s.Policy) && s.Policy != "" {
		errs = append(errs, fmt.Errorf("policy is %q: want one of %s", s.Policy, strings.Join(Policies(), ", ")))
	}
	return errs
}

func (r Route) check(where string) (errs []error) {
	if r.Name == "" || len(r.Name) > maxText || strings.ContainsFunc(r.Name, notPlain) {
		errs = append(errs, fmt.Errorf("%s.name is %q: want 1 to %d letters, digits, dots, dashes or underscores", where, r.Name, maxText))
	}
	where = fmt.Sprintf("%s (%s)", where, r.Name)
	errs = append(errs, r.Match.check(where+".match")...)
	if len(r.To) == 0 || len(r.To) > MaxDestinations {
		errs = append(errs, fmt.Errorf("%s.to has %d destinations: want 1 to %d", where, len(r.To), MaxDestinations))
	}
	for i, d := range r.To {
		at := fmt.Sprintf("%s.to[%d]", where, i)
		if d.Weight < 0 || d.Weight > maxWeight {
			errs = append(errs, fmt.Errorf("%s.weight is %d: want 0 to %d, a part of the sum of the route's weights", at, d.Weight, maxWeight))
		}
		for _, key := range slices.Sorted(maps.Keys(d.Select)) {
			errs = append(errs, checkText(at+".select", "key", key)...)
			errs = append(errs, checkText(at+".select["+key+"]", "value", d.Select[key])...)
			if strings.HasPrefix(key, "@") && !slices.Contains(attributes, key) {
				errs = append(errs, fmt.Errorf("%s.select has the key %q: those with @ are %s", at, key, strings.Join(attributes, ", ")))
			}
			if value := d.Select[key]; strings.HasPrefix(value, "@") && value != "@caller" || value == "@caller" && key == "@addr" {
				errs = append(errs, fmt.Errorf("%s.select[%s] is %q: want a value, or @caller for what the caller has under that key", at, key, value))
			}
		}
	}
	switch r.Fallback {
	case "", FallbackAny, FallbackFail:
	default:
		errs = append(errs, fmt.Errorf("%s.fallback is %q: want any or fail", where, r.Fallback))
	}
	return errs
}

func (m Match) check(where string) (errs []error) {
	for _, list := range []struct {
		name   string
		values []string
	}{{"callers", m.Callers}, {"devices", m.Devices}, {"sites", m.Sites}, {"cities", m.Cities}} {
		if list.values != nil && len(list.values) == 0 {
			errs = append(errs, fmt.Errorf("%s.%s is empty: name at least one, or leave it out for any", where, list.name))
		}
		for i, value := range list.values {
			errs = append(errs, checkText(fmt.Sprintf("%s.%s[%d]", where, list.name, i), "value", value)...)
			if star := strings.IndexByte(value, '*'); star >= 0 && (list.name != "callers" || star != len(value)-1) {
				errs = append(errs, fmt.Errorf("%s.%s[%d] is %q: * stands at the end of a caller only", where, list.name, i, value))
			}
		}
	}
	for _, labels := range []struct {
		name   string
		values map[string][]string
	}{{"caller_labels", m.CallerLabels}, {"labels", m.Labels}} {
		for _, key := range slices.Sorted(maps.Keys(labels.values)) {
			at := fmt.Sprintf("%s.%s[%s]", where, labels.name, key)
			errs = append(errs, checkText(where+"."+labels.name, "key", key)...)
			if len(labels.values[key]) == 0 {
				errs = append(errs, fmt.Errorf("%s is empty: name at least one value, or * for any", at))
			}
			for _, value := range labels.values[key] {
				errs = append(errs, checkText(at, "value", value)...)
				if strings.Contains(value, "*") && value != "*" {
					errs = append(errs, fmt.Errorf("%s is %q: want whole values, or * alone for any", at, value))
				}
			}
		}
	}
	return errs
}

func checkText(where, what, text string) []error {
	if text == "" || len(text) > maxText || strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\uFFFD' }) {
		return []error{fmt.Errorf("%s has the %s %q: want 1 to %d bytes of printable UTF-8", where, what, text, maxText)}
	}
	return nil
}

func notPlain(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_')
}

// always reports whether m holds for every call of every caller.
func (m Match) always() bool {
	return len(m.Callers)+len(m.Devices)+len(m.Sites)+len(m.Cities)+len(m.CallerLabels)+len(m.Labels) == 0
}

// Policies returns the names that Settings.Policy takes.
func Policies() []string { return balance.Policies() }
