package cmdb

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Plan is what an Apply would do, made by DB.Plan. It is read only, and good for as long as the world does not
// change what it would do.
type Plan struct {
	// Hash names exactly these changes: same changes to the same objects, same hash.
	Hash string `json:"hash"`
	// Changes in the order of kinds and names.
	Changes []PlannedChange `json:"changes"`
	// Unchanged counts the objects that are declared as they are.
	Unchanged int `json:"unchanged"`
	// Blast is who is touched.
	Blast Blast `json:"blast"`

	declarations []*declaration
	options      planOptions
}

// PlannedChange is what a plan does to one object.
type PlannedChange struct {
	Ref
	Action string        `json:"action"` // create, update or delete
	Fields []FieldChange `json:"fields,omitempty"`
}

// PlanOption widens a plan.
type PlanOption func(*planOptions)

type planOptions struct {
	prune   []Kind
	removed []Ref
}

// Prune makes the source the whole truth about some kinds (none given: all): what it does not declare is deleted.
func Prune(kinds ...Kind) PlanOption {
	return func(o *planOptions) {
		if len(kinds) == 0 {
			kinds = Kinds()
		}
		o.prune = append(o.prune, kinds...)
	}
}

// Remove deletes one object.
func Remove(kind Kind, name string) PlanOption {
	return func(o *planOptions) { o.removed = append(o.removed, Ref{kind, name}) }
}

// Empty tells whether the plan changes nothing.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// Plan compares the objects that source declares with those that are, and checks all relations as they would
// be afterwards. It changes nothing. Wrong declarations are Faults, all of them. Source may be nil if an
// option says what to remove.
func (db *DB) Plan(ctx context.Context, source Source, opts ...PlanOption) (*Plan, error) {
	var options planOptions
	for _, opt := range opts {
		opt(&options)
	}
	if source == nil && len(options.removed) == 0 {
		return nil, fmt.Errorf("%w: no source; give Dir, Documents or Named", ErrRequest)
	}
	if err := db.Sync(ctx); err != nil {
		return nil, fmt.Errorf("cmdb: plan: %w", err)
	}
	var (
		declarations []*declaration
		faults       Faults
	)
	if source != nil {
		docs, err := source.Read(ctx)
		if err != nil {
			return nil, err
		}
		for _, doc := range docs {
			parsed, bad := parse(doc)
			declarations, faults = append(declarations, parsed...), append(faults, bad...)
		}
	}
	faults = append(faults, twice(declarations)...)
	if len(faults) > 0 {
		return nil, faults
	}
	plan, _, err := planOn(db.view(), declarations, options)
	return plan, err
}

// twice finds objects that are declared more than once.
func twice(declarations []*declaration) Faults {
	var faults Faults
	first := make(map[Ref]*declaration, len(declarations))
	for _, d := range declarations {
		ref := d.object.Ref()
		if other, ok := first[ref]; ok {
			faults = append(faults, d.fault("name", ref.Name, fmt.Sprintf("is declared already at %s:%d", other.document, other.line("")), "keep one of the two"))
			continue
		}
		first[ref] = d
	}
	return faults
}

// planOn makes the plan on a view, together with the view as the plan would leave it.
func planOn(v view, declarations []*declaration, options planOptions) (*Plan, *overlay, error) {
	world := newOverlay(v)
	world.puts = make(map[Ref]Object, len(declarations))
	after := &world
	plan := &Plan{declarations: declarations, options: options}
	var faults Faults
	declared := make(map[Ref]*declaration, len(declarations))
	for _, d := range declarations {
		ref := d.object.Ref()
		declared[ref] = d
		have, _ := v.get(ref)
		want := d.object
		if dev, ok := want.(*Device); ok {
			was, _ := have.(*Device)
			faults = append(faults, lifeFaults(d, dev, was)...)
			want = dev.declared(was)
		}
		fields := diff(have, want)
		if have != nil && len(fields) == 0 {
			plan.Unchanged++
			continue
		}
		action := "create"
		if have != nil {
			action = "update"
		}
		after.put(want)
		plan.Changes = append(plan.Changes, PlannedChange{ref, action, fields})
	}
	faults = append(faults, planRemovals(v, after, plan, declared)...)
	faults = append(faults, relationFaults(v, after, declared)...)
	if len(faults) > 0 {
		return nil, nil, faults
	}
	slices.SortFunc(plan.Changes, func(a, b PlannedChange) int { return compareRefs(a.Ref, b.Ref) })
	plan.Hash = hashOf(plan.Changes)
	plan.Blast = blastOf(v, after, plan.Changes)
	return plan, after, nil
}

// planRemovals adds what the options remove.
func planRemovals(v view, after *overlay, plan *Plan, declared map[Ref]*declaration) Faults {
	var faults Faults
	remove := func(ref Ref) {
		have, ok := v.get(ref)
		switch {
		case !ok:
			faults = append(faults, Fault{Kind: ref.Kind, Name: ref.Name, Problem: "is to be removed and is not there", Mend: "leave it out"})
		case after.deletes[ref]:
		default:
			if d, ok := have.(*Device); ok && d.State != Retired {
				faults = append(faults, Fault{Kind: ref.Kind, Name: ref.Name, Field: "state", Value: string(d.State),
					Problem: "is to be removed and is not retired", Mend: "retire it first"})
				return
			}
			after.deletes[ref] = true
			plan.Changes = append(plan.Changes, PlannedChange{ref, "delete", diff(have, nil)})
		}
	}
	for _, ref := range plan.options.removed {
		if d, ok := declared[ref]; ok {
			faults = append(faults, d.fault("name", ref.Name, "is declared and to be removed", "do one of the two"))
			continue
		}
		remove(ref)
	}
	for _, kind := range plan.options.prune {
		for object := range v.all(kind) {
			if _, ok := declared[object.Ref()]; !ok {
				remove(object.Ref())
			}
		}
	}
	return faults
}

// lifeFaults refuses documents that try to move a device through its life.
func lifeFaults(d *declaration, want, have *Device) Faults {
	was := &Device{State: Idle}
	if have != nil {
		was = have
	}
	var faults Faults
	check := func(field, value string, same bool) {
		if slices.Contains(d.given, field) && !same {
			faults = append(faults, d.fault(field, value, "is not as it is now, and no document changes it", "leave it out; acquire, serve, release, repair and retire change it"))
		}
	}
	check("state", string(want.State), want.State == was.State)
	check("module", want.Module, want.Module == was.Module)
	check("holder", want.Holder, want.Holder == was.Holder)
	check("fault", want.Fault, want.Fault == was.Fault)
	return faults
}

// relationFaults checks every relation that the plan could break.
func relationFaults(v view, after *overlay, declared map[Ref]*declaration) Faults {
	var faults Faults
	lost := map[Ref]bool{}
	for ref := range after.deletes {
		lost[ref] = true
		old, _ := v.get(ref)
		for _, provided := range providedBy(old) {
			lost[provided] = true
		}
	}
	for _, ref := range sortedRefs(after.puts) {
		object := after.puts[ref]
		d := declared[ref]
		for _, r := range referencesOf(object) {
			if !exists(after, r.to) {
				faults = append(faults, d.fault(r.field, r.to.Name, "names no "+string(r.to.Kind), mendReference(after, r.to)))
			}
		}
		for _, provided := range providedBy(object) {
			for other := range after.providing(provided) {
				if other.Ref() != ref && (after.puts[other.Ref()] == nil || compareRefs(other.Ref(), ref) < 0) {
					faults = append(faults, d.fault("services", provided.Name, "is provided by "+other.Ref().String()+" already", "choose another service id"))
				}
			}
		}
		if b, ok := object.(*Business); ok && circular(after, b) {
			faults = append(faults, d.fault("parent", b.Parent, "leads back to the business itself", "choose a parent outside of it"))
		}
		if old, ok := v.get(ref); ok {
			for _, provided := range providedBy(old) {
				lost[provided] = true
			}
		}
	}
	for _, ref := range sortedRefs(lost) {
		if exists(after, ref) {
			continue
		}
		for object := range after.referring(ref) {
			if _, put := after.puts[object.Ref()]; put {
				continue // said above, with its line
			}
			for _, r := range referencesOf(object) {
				if r.to == ref {
					faults = append(faults, Fault{Kind: object.Ref().Kind, Name: object.Ref().Name, Field: r.field, Value: ref.Name,
						Problem: "would name no " + string(ref.Kind) + " any more", Mend: "keep the " + string(ref.Kind) + ", or change this first"})
				}
			}
		}
	}
	return faults
}

func circular(v view, b *Business) bool {
	for name, steps := b.Parent, 0; name != ""; steps++ {
		if name == b.Name || steps > 1000 {
			return true
		}
		parent, ok := find[*Business](v, Ref{KindBusiness, name})
		if !ok {
			return false
		}
		name = parent.Parent
	}
	return false
}

func mendReference(v view, to Ref) string {
	best, bestDistance := "", 4
	near := func(name string) {
		if d := distance(to.Name, name); d < bestDistance {
			best, bestDistance = name, d
		}
	}
	if to.Kind == kindService {
		for object := range v.all(KindModule) {
			for _, p := range providedBy(object) {
				near(p.Name)
			}
		}
	} else {
		for object := range v.all(to.Kind) {
			near(object.Ref().Name)
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	if to.Kind == kindService {
		return "declare it under services of the module that provides it"
	}
	return fmt.Sprintf("declare kind: %s, name: %s, or name another", to.Kind, to.Name)
}

func sortedRefs[V any](m map[Ref]V) []Ref {
	refs := make([]Ref, 0, len(m))
	for ref := range m {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, compareRefs)
	return refs
}

func hashOf(changes []PlannedChange) string {
	h := sha256.New()
	encoder := json.NewEncoder(h)
	for _, c := range changes {
		if err := encoder.Encode(c); err != nil {
			panic("cmdb: a planned change cannot be marshalled: " + err.Error()) // raw JSON of our own making
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// String is the plan for a reader: counts, the diff, and the blast radius.
func (p *Plan) String() string {
	var b strings.Builder
	counts := map[string]int{}
	for _, c := range p.Changes {
		counts[c.Action]++
	}
	fmt.Fprintf(&b, "plan %s: %d to create, %d to update, %d to delete, %d unchanged\n",
		cmp.Or(p.Hash, "-"), counts["create"], counts["update"], counts["delete"], p.Unchanged)
	for _, c := range p.Changes {
		mark := map[string]string{"create": "+", "update": "~", "delete": "-"}[c.Action]
		fmt.Fprintf(&b, "\n%s %s %s\n", mark, c.Kind, c.Name)
		if c.Action == "delete" {
			continue
		}
		for _, f := range c.Fields {
			fmt.Fprintf(&b, "    %s\n", f)
		}
	}
	if !p.Empty() {
		fmt.Fprintf(&b, "\n%s\n", p.Blast)
	}
	return b.String()
}
