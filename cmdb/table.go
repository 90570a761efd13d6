package cmdb

import (
	"iter"

	"github.com/zhiyun-ops/zhiyun/internal/state"
)

// table is a kind's rows in the replica, as Objects.
type table interface {
	schema() state.Schema
	empty() Object
	get(r state.Reader, name string) (Object, int64, bool)
	from(r state.Reader, name string) iter.Seq[Object]
	by(r state.Reader, index, value string) iter.Seq[Object]
	put(tx *state.Tx, object Object)
	delete(tx *state.Tx, name string)
}

// rowOf is a pointer to T that is an Object.
type rowOf[T any] interface {
	*T
	Object
}

type tableOf[T any, P rowOf[T]] struct{ rows *state.Table[T] }

func newTable[T any, P rowOf[T]](kind Kind, indexes ...state.TableOption[T]) table {
	return tableOf[T, P]{state.NewTable(string(kind), func(t *T) string { return P(t).Ref().Name }, indexes...)}
}

// byReference files a row under everything that it refers to.
func byReference[T any, P rowOf[T]]() state.TableOption[T] {
	return state.Index("ref", func(t *T) []string {
		refs := referencesOf(P(t))
		out := make([]string, len(refs))
		for i, r := range refs {
			out[i] = r.to.String()
		}
		return out
	})
}

func (t tableOf[T, P]) schema() state.Schema { return t.rows }
func (t tableOf[T, P]) empty() Object        { return P(new(T)) }

func (t tableOf[T, P]) get(r state.Reader, name string) (Object, int64, bool) {
	row, ok := t.rows.Get(r, name)
	if !ok {
		return nil, 0, false
	}
	return P(row.Value), row.Revision, true
}

func (t tableOf[T, P]) from(r state.Reader, name string) iter.Seq[Object] {
	return objects[T, P](t.rows.From(r, name))
}

func (t tableOf[T, P]) by(r state.Reader, index, value string) iter.Seq[Object] {
	return objects[T, P](t.rows.By(r, index, value))
}

func (t tableOf[T, P]) put(tx *state.Tx, object Object) {
	if p, ok := object.(P); ok {
		t.rows.Put(tx, p)
	}
}

func (t tableOf[T, P]) delete(tx *state.Tx, name string) { t.rows.Delete(tx, name) }

func objects[T any, P rowOf[T]](rows iter.Seq[state.Row[T]]) iter.Seq[Object] {
	return func(yield func(Object) bool) {
		for row := range rows {
			if !yield(P(row.Value)) {
				return
			}
		}
	}
}

// snapshot is the view of one moment of the replica.
type snapshot struct{ state.Reader }

func (s snapshot) find(ref Ref) (Object, int64, bool) {
	if i := kindOrder(ref.Kind); i >= 0 {
		return kindTable[i].table.get(s, ref.Name)
	}
	return nil, 0, false
}

func (s snapshot) get(ref Ref) (Object, bool) {
	object, _, ok := s.find(ref)
	return object, ok
}

func (s snapshot) all(kind Kind) iter.Seq[Object] { return s.from(kind, "") }

// from yields the objects of a kind whose names are not smaller than name, in name order.
func (s snapshot) from(kind Kind, name string) iter.Seq[Object] {
	if i := kindOrder(kind); i >= 0 {
		return kindTable[i].table.from(s, name)
	}
	return func(func(Object) bool) {}
}

func (s snapshot) referring(to Ref) iter.Seq[Object] {
	return func(yield func(Object) bool) {
		for _, row := range kindTable {
			index, value := row.refer(to)
			if index == "" {
				continue
			}
			for object := range row.table.by(s, index, value) {
				if !yield(object) {
					return
				}
			}
		}
	}
}

func (s snapshot) providing(what Ref) iter.Seq[Object] {
	return kindTable[kindOrder(KindModule)].table.by(s, "provides", what.Name)
}

func (s snapshot) inState(state State) iter.Seq[*Device] {
	return func(yield func(*Device) bool) {
		for object := range kindTable[kindOrder(KindDevice)].table.by(s, "state", string(state)) {
			if d, ok := object.(*Device); ok && !yield(d) {
				return
			}
		}
	}
}
