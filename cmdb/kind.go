package cmdb

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// Kind names a kind of object, as in a document's `kind:` field.
type Kind string

// The kinds that documents declare, in the order in which one may need the other.
const (
	KindSite        Kind = "site"
	KindDeviceType  Kind = "device_type"
	KindInitProfile Kind = "init_profile"
	KindBusiness    Kind = "business"
	KindModule      Kind = "module"
	KindDevice      Kind = "device"
)

// Kinds that the DB writes itself; no document declares them.
const (
	KindAcquisition Kind = "acquisition"
	kindGuard       Kind = "guard"
	kindTombstone   Kind = "tombstone"
)

// kindService is no kind of its own: a module provides service ids, and permissions refer to them.
const kindService Kind = "service"

// Layer is one of the five layers in which a module's environment is described, or the view from the
// business above them.
type Layer string

const (
	LayerBusiness Layer = "business" // who owns it, how it must behave
	LayerHardware Layer = "hardware" // devices, device types, sites
	LayerOS       Layer = "os"       // initial state of the system
	LayerProgram  Layer = "program"  // packages, processes, scripts
	LayerConfig   Layer = "config"   // configuration and data
	LayerExternal Layer = "external" // services, virtual addresses, permissions
)

// Ref names one object.
type Ref struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
}

// String is "kind/name".
func (r Ref) String() string { return string(r.Kind) + "/" + r.Name }

func compareRefs(a, b Ref) int {
	if a.Kind != b.Kind {
		return kindOrder(a.Kind) - kindOrder(b.Kind)
	}
	return strings.Compare(a.Name, b.Name)
}

// Object is one row of the DB: a *Site, *DeviceType, *InitProfile, *Business, *Module, *Device or
// *Acquisition. An object that was handed out is never changed, and must not be.
type Object interface {
	// Ref names the object.
	Ref() Ref
	// Metadata tells how often and by whom the object was last written.
	Metadata() Meta

	meta() *Meta
	copied() Object // shallow
}

// What else a kind may have.
type (
	normalizer interface{ normalize() }              // fills in documented defaults
	checked    interface{ check(*checker) }          // says what is wrong by looking at the object alone
	referrer   interface{ references() []reference } // names the objects that this one needs
	provider   interface{ provides() []Ref }         // names what others may refer to beside the object itself
)

func referencesOf(object Object) []reference {
	if r, ok := object.(referrer); ok {
		return r.references()
	}
	return nil
}

func providedBy(object Object) []Ref {
	if p, ok := object.(provider); ok {
		return p.provides()
	}
	return nil
}

// Meta is the last change of an object, kept with it by the DB; those before it are History. A document may carry
// it (as what was printed does); it is ignored.
type Meta struct {
	Version   int64         `json:"version,omitempty"` // 1 for the first, one more with each change
	Action    string        `json:"action,omitempty"`  // create, update, or a verb of the life cycle
	At        time.Time     `json:"at,omitzero"`
	Actor     string        `json:"actor,omitempty"`
	Reason    string        `json:"reason,omitempty"`
	Execution string        `json:"execution,omitempty"`
	Fields    []FieldChange `json:"fields,omitempty"` // none for a create: the whole object is new
}

// reference is a field that names another object.
type reference struct {
	field string
	to    Ref
}

// kindRow is all that the DB knows about a kind.
type kindRow struct {
	kind     Kind
	layer    Layer
	declared bool // by documents
	table    table
	// refer tells under which index and value the kind's objects that refer to an object are found; "" if
	// none can.
	refer func(to Ref) (index, value string)
}

func refersToNothing(Ref) (string, string) { return "", "" }
func refersByName(to Ref) (string, string) { return "ref", to.String() }

// kindTable is read only.
var kindTable = []kindRow{
	{KindSite, LayerHardware, true, newTable[Site](KindSite), refersToNothing},
	{KindDeviceType, LayerHardware, true, newTable[DeviceType](KindDeviceType), refersToNothing},
	{KindInitProfile, LayerOS, true, newTable[InitProfile](KindInitProfile), refersToNothing},
	{KindBusiness, LayerBusiness, true, newTable(KindBusiness, byReference[Business]()), refersByName},
	{KindModule, LayerProgram, true, newTable(KindModule, byReference[Module](), byService()), refersByName},
	{KindDevice, LayerHardware, true, newTable(KindDevice, deviceIndexes()...), deviceRefers},
	{KindAcquisition, LayerHardware, false, newTable[Acquisition](KindAcquisition), refersToNothing},
	{kindGuard, "", false, newTable[guard](kindGuard), refersToNothing},
	{kindTombstone, "", false, newTable[tombstone](kindTombstone), refersToNothing},
}

func kindOrder(k Kind) int {
	for i := range kindTable {
		if kindTable[i].kind == k {
			return i
		}
	}
	return -1
}

// Kinds lists the kinds that documents declare.
func Kinds() []Kind {
	var out []Kind
	for _, row := range kindTable {
		if row.declared {
			out = append(out, row.kind)
		}
	}
	return out
}

// newObject makes an empty object of a kind that documents declare.
func newObject(k Kind) (Object, error) {
	if err := readable(k); err != nil || k == KindAcquisition {
		return nil, cmp.Or(err, fmt.Errorf("%w: %s is not declared by documents", ErrKind, k))
	}
	return kindTable[kindOrder(k)].table.empty(), nil
}

// readable tells whether a kind is for users to see.
func readable(k Kind) error {
	if i := kindOrder(k); i >= 0 && (kindTable[i].declared || k == KindAcquisition) {
		return nil
	}
	return fmt.Errorf("%w: %q; use one of %s", ErrKind, k, joinKinds())
}

func joinKinds() string {
	var names []string
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}
