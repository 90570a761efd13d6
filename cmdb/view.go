package cmdb

import "iter"

// view is a consistent state of all objects, as the rules read it.
type view interface {
	get(Ref) (Object, bool)
	all(Kind) iter.Seq[Object]           // in name order
	referring(to Ref) iter.Seq[Object]   // objects with a reference to it
	providing(what Ref) iter.Seq[Object] // objects that provide it
	inState(State) iter.Seq[*Device]     // in name order
}

// exists tells whether a reference's target is there, itself or as something that another object provides.
func exists(v view, to Ref) bool {
	if to.Kind != kindService {
		_, ok := v.get(to)
		return ok
	}
	for range v.providing(to) {
		return true
	}
	return false
}

func find[T Object](v view, ref Ref) (T, bool) {
	o, ok := v.get(ref)
	if !ok {
		var zero T
		return zero, false
	}
	t, ok := o.(T)
	return t, ok
}

func device(v view, name string) (*Device, bool) { return find[*Device](v, Ref{KindDevice, name}) }
func module(v view, name string) (*Module, bool) { return find[*Module](v, Ref{KindModule, name}) }

// overlay is a view with changes on top: the world as a plan would leave it.
type overlay struct {
	view
	puts    map[Ref]Object // written by put alone
	deletes map[Ref]bool

	// By what is referred to, or provided: those that were put with it. Some may have changed since, or be gone. Nil until
	// somebody asks: most who put do not.
	referrers, providers map[Ref]map[Ref]struct{}
}

func newOverlay(on view) overlay {
	return overlay{view: on, puts: map[Ref]Object{}, deletes: map[Ref]bool{}}
}

// put lays an object over what is there.
func (o *overlay) put(object Object) {
	o.puts[object.Ref()] = object
	if o.referrers != nil {
		o.relate(object)
	}
}

// related makes the lists of who refers to what: a plan of a whole fleet asks for them with each of its objects.
func (o *overlay) related() {
	if o.referrers != nil {
		return
	}
	o.referrers, o.providers = make(map[Ref]map[Ref]struct{}), make(map[Ref]map[Ref]struct{})
	for _, object := range o.puts {
		o.relate(object)
	}
}

func (o *overlay) relate(object Object) {
	ref := object.Ref()
	note := func(index map[Ref]map[Ref]struct{}, to Ref) {
		if index[to] == nil {
			index[to] = make(map[Ref]struct{}, 1)
		}
		index[to][ref] = struct{}{}
	}
	for _, r := range referencesOf(object) {
		note(o.referrers, r.to)
	}
	for _, provided := range providedBy(object) {
		note(o.providers, provided)
	}
}

func (o *overlay) get(ref Ref) (Object, bool) {
	if put, ok := o.puts[ref]; ok {
		return put, true
	}
	if o.deletes[ref] {
		return nil, false
	}
	return o.view.get(ref)
}

func (o *overlay) covered(ref Ref) bool {
	_, ok := o.puts[ref]
	return ok || o.deletes[ref]
}

func (o *overlay) referring(to Ref) iter.Seq[Object] {
	return func(yield func(Object) bool) {
		for object := range o.view.referring(to) {
			if !o.covered(object.Ref()) && !yield(object) {
				return
			}
		}
		o.related()
		for ref := range o.referrers[to] {
			object, still := o.puts[ref]
			if !still {
				continue
			}
			for _, r := range referencesOf(object) {
				if r.to == to {
					if !yield(object) {
						return
					}
					break
				}
			}
		}
	}
}

func (o *overlay) providing(what Ref) iter.Seq[Object] {
	return func(yield func(Object) bool) {
		for object := range o.view.providing(what) {
			if !o.covered(object.Ref()) && !yield(object) {
				return
			}
		}
		o.related()
		for ref := range o.providers[what] {
			object, still := o.puts[ref]
			if !still {
				continue
			}
			for _, provided := range providedBy(object) {
				if provided == what && !yield(object) {
					return
				}
			}
		}
	}
}
