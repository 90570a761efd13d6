package center

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Route takes notices to sinks. Routes are tried in the order of their names; the first that takes a notice is the last, unless it says
// Continue. A notice that no route takes goes to every sink: nothing is lost because nobody thought of it.
type Route struct {
	Name string `json:"name"` // their order, so give it a number: 10-critical
	// What it takes; an empty field takes all. Patterns are those of shells: shop.*
	Severity Severity `json:"severity,omitempty"` // at the least
	Kinds    []string `json:"kinds,omitempty"`    // patterns
	Modules  []string `json:"modules,omitempty"`  // patterns
	Owners   []string `json:"owners,omitempty"`   // of the module, patterns

	Sinks    []string  `json:"sinks"`              // by name; none: the notice is recorded only
	Template string    `json:"template,omitempty"` // default: the notice as it is
	Continue bool      `json:"continue,omitempty"` // later routes may take it too
	Actor    string    `json:"actor"`
	At       time.Time `json:"at"`
}

var severities = []Severity{Info, Warning, Critical}

func (r Route) takes(n Notice) bool {
	return slices.Index(severities, n.Severity) >= slices.Index(severities, r.Severity) &&
		anyMatch(r.Kinds, n.Kind) && anyMatch(r.Modules, n.Module) && anyMatch(r.Owners, n.Owner)
}

func anyMatch(patterns []string, value string) bool {
	for _, pattern := range patterns {
		if matched, err := path.Match(pattern, value); err == nil && matched {
			return true
		}
	}
	return len(patterns) == 0
}

func (r Route) check() error {
	if err := firstOf(checkName("route", r.Name), checkActor(r.Actor), optional(checkName, "template", r.Template)); err != nil {
		return err
	}
	if r.Severity != "" && !slices.Contains(severities, r.Severity) {
		return fault("severity", r.Severity, "give info, warning or critical, or nothing for all")
	}
	if len(r.Sinks) > 16 {
		return fault("sinks", len(r.Sinks), "give at most 16")
	}
	for field, patterns := range map[string][]string{"kinds": r.Kinds, "modules": r.Modules, "owners": r.Owners} {
		if len(patterns) > 64 {
			return fault(field, len(patterns), "give at most 64 patterns")
		}
		for _, pattern := range patterns {
			if _, err := path.Match(pattern, ""); err != nil || pattern == "" || len(pattern) > 128 {
				return fault(field, pattern, "give a pattern, as in shop.*")
			}
		}
	}
	return nil
}

// SetRoute keeps a route, in place of one of its name. Its sinks and its template must be there.
func (n *Notify) SetRoute(ctx context.Context, r Route) (Route, error) {
	if err := r.check(); err != nil {
		return Route{}, err
	}
	sinks, err := n.allSinks(ctx)
	if err != nil {
		return Route{}, err
	}
	for _, name := range r.Sinks {
		if _, known := sinks[name]; !known {
			return Route{}, fault("sinks", name, "there is no such sink; zhiyun notify sinks lists them")
		}
	}
	if r.Template != "" {
		if _, err := n.templates.must(ctx, r.Template); err != nil {
			return Route{}, err
		}
	}
	r.At = n.now().UTC()
	done, _, err := n.routes.change(ctx, r.Name, func(Route, bool) (Route, verdict, error) { return r, write, nil })
	return done.value, err
}

// Routes lists the routes in their order.
func (n *Notify) Routes(ctx context.Context, page Page) ([]Route, string, error) {
	list, err := n.routes.list(ctx, "")
	if err != nil {
		return nil, "", err
	}
	return cut(list, page, func(Route) bool { return true })
}

// RemoveRoute removes a route. ErrNotFound if there is none.
func (n *Notify) RemoveRoute(ctx context.Context, name string) error {
	_, was, err := n.routes.change(ctx, name, func(r Route, _ bool) (Route, verdict, error) { return r, remove, nil })
	return absent(err, was, "route", name)
}

func absent(err error, was bool, noun, name string) error {
	if err == nil && !was {
		err = fmt.Errorf("%w: %s %q", ErrNotFound, noun, name)
	}
	return err
}

// removed removes something unless a route uses it.
func (n *Notify) removed(ctx context.Context, noun, name string, uses func(Route) bool, do func() error) error {
	routes, err := n.routes.list(ctx, "")
	if err != nil {
		return err
	}
	var by []string
	for _, r := range routes {
		if uses(r.value) {
			by = append(by, r.key)
		}
	}
	if len(by) > 0 {
		return fmt.Errorf("%w: %s %q is used by route %s; change that first", ErrTaken, noun, name, strings.Join(by, ", "))
	}
	return do()
}

// targets says where a notice goes.
func (n *Notify) targets(ctx context.Context, notice Notice) ([]Target, error) {
	routes, err := n.routes.list(ctx, "")
	if err != nil {
		return nil, err
	}
	var out []Target
	taken := false
	for _, r := range routes {
		if !r.value.takes(notice) {
			continue
		}
		taken = true
		for _, sink := range r.value.Sinks {
			if !slices.ContainsFunc(out, func(t Target) bool { return t.Sink == sink }) {
				out = append(out, Target{Sink: sink, Template: r.value.Template})
			}
		}
		if !r.value.Continue {
			break
		}
	}
	if taken {
		return out, nil
	}
	sinks, err := n.allSinks(ctx)
	if err != nil {
		return nil, err
	}
	for name := range sinks {
		out = append(out, Target{Sink: name})
	}
	slices.SortFunc(out, func(a, b Target) int { return strings.Compare(a.Sink, b.Sink) })
	return out, nil
}
