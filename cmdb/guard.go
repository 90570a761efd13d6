package cmdb

// guard is a row that two kinds of change must both write if neither may happen unseen by the other: applies
// among one another, and the deletion of a module with the holding of devices for it.
type guard struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
	Meta  Meta   `json:"meta,omitzero"`
}

func (g *guard) Ref() Ref       { return Ref{kindGuard, g.Name} }
func (g *guard) Metadata() Meta { return g.Meta }
func (g *guard) meta() *Meta    { return &g.Meta }
func (g *guard) copied() Object { c := *g; return &c }

const guardModel = "model"

func guardModule(name string) string { return "module/" + name }

// tombstone stands where an object was, with its last change.
type tombstone struct {
	Name string `json:"name"` // kind/name of the object
	Last Change `json:"last"`
	Meta Meta   `json:"meta,omitzero"`
}

func graveOf(ref Ref) Ref { return Ref{kindTombstone, ref.String()} }

func (t *tombstone) Ref() Ref       { return Ref{kindTombstone, t.Name} }
func (t *tombstone) Metadata() Meta { return t.Meta }
func (t *tombstone) meta() *Meta    { return &t.Meta }
func (t *tombstone) copied() Object { c := *t; return &c }
