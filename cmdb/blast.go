package cmdb

import (
	"fmt"
	"strings"
)

// Blast is the blast radius of a plan: existing things that its changes touch, each list sorted.
type Blast struct {
	Modules  []string `json:"modules,omitempty"`
	Devices  []string `json:"devices,omitempty"` // touched themselves, or running a touched module
	Sites    []string `json:"sites,omitempty"`   // of these devices
	Callers  []string `json:"callers,omitempty"` // modules that call a touched module's services
	Services []string `json:"services,omitempty"`
}

// String is the radius in one line.
func (b Blast) String() string {
	part := func(what string, names []string) string {
		const show = 6
		switch n := len(names); {
		case n == 0:
			return "no " + what + "s"
		case n == 1:
			return "1 " + what + " (" + names[0] + ")"
		case n > show:
			return fmt.Sprintf("%d %ss (%s, ...)", n, what, strings.Join(names[:show], ", "))
		default:
			return fmt.Sprintf("%d %ss (%s)", n, what, strings.Join(names, ", "))
		}
	}
	return "touches " + strings.Join([]string{part("module", b.Modules), part("device", b.Devices), part("site", b.Sites), part("caller", b.Callers)}, ", ")
}

// BlastRadius tells what a change of one object would touch.
func (db *DB) BlastRadius(kind Kind, name string) (Blast, error) {
	v := db.view()
	ref := Ref{kind, name}
	if _, ok := v.get(ref); !ok {
		return Blast{}, fmt.Errorf("%w: %s", ErrNotFound, ref)
	}
	none := &overlay{view: v}
	return blastOf(v, none, []PlannedChange{{Ref: ref}}), nil
}

// blastOf walks from the changed objects to those that feel it, in the world before and after.
func blastOf(before view, after *overlay, changes []PlannedChange) Blast {
	w := blastWalk{modules: map[string]bool{}, devices: map[string]bool{}, sites: map[string]bool{}, callers: map[string]bool{}, services: map[string]bool{}, seen: map[Ref]bool{}}
	for _, v := range []view{before, after} {
		clear(w.seen)
		for _, c := range changes {
			w.touch(v, c.Ref)
		}
	}
	return Blast{Modules: sortedKeys(w.modules), Devices: sortedKeys(w.devices), Sites: sortedKeys(w.sites), Callers: sortedKeys(w.callers), Services: sortedKeys(w.services)}
}

type blastWalk struct {
	modules, devices, sites, callers, services map[string]bool
	seen                                       map[Ref]bool
}

func (w *blastWalk) touch(v view, ref Ref) {
	object, ok := v.get(ref)
	if !ok || w.seen[ref] {
		return
	}
	w.seen[ref] = true
	switch object := object.(type) {
	case *Device:
		w.devices[object.Name] = true
		w.sites[object.Site] = true
		if object.Module != "" {
			w.modules[object.Module] = true
		}
	case *Module:
		w.modules[object.Name] = true
		for other := range v.referring(ref) {
			if d, ok := other.(*Device); ok {
				w.devices[d.Name] = true
				w.sites[d.Site] = true
			}
		}
		for _, service := range providedBy(object) {
			w.services[service.Name] = true
			for caller := range v.referring(service) {
				if caller.Ref() != ref {
					w.callers[caller.Ref().Name] = true
				}
			}
		}
	default:
		if ref.Kind == KindSite {
			w.sites[ref.Name] = true
		}
		for other := range v.referring(ref) {
			w.touch(v, other.Ref())
		}
	}
}
