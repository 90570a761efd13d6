// Package view is one service's instances as a watcher holds them: a value that snapshots replace and deltas
// advance. It is pure: no clock, no I/O. A View and all that it points at are never changed after they were made.
package view

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// ErrGap says that a delta does not start where the view stands: subscribe again from revision 0.
var ErrGap = errors.New("the delta does not follow the state that is held; a full snapshot is needed")

// View is the state of one service at one revision of one epoch.
type View struct {
	Service   string
	Epoch     string
	Revision  int64
	Instances []*l5pb.Instance // by address, each once
}

// Of makes a view of a snapshot: instances in order, the last of those with one address, none without an address.
func Of(snapshot *l5pb.Snapshot) View {
	v := View{Service: snapshot.GetService(), Epoch: snapshot.GetEpoch(), Revision: snapshot.GetRevision()}
	v.Instances = merge(nil, snapshot.GetInstances(), nil)
	return v
}

// Supersedes reports whether snapshot may replace v: it is of another epoch, or not older.
func (v View) Supersedes(snapshot *l5pb.Snapshot) bool {
	return snapshot.GetEpoch() != v.Epoch || snapshot.GetRevision() >= v.Revision
}

// Advance returns the view after delta. A delta that v already contains changes nothing; one that leaves a gap
// is ErrGap, and v is returned as it was.
func (v View) Advance(delta *l5pb.Delta) (View, error) {
	switch {
	case delta.GetEpoch() != v.Epoch:
		return v, fmt.Errorf("service %q: epoch %q, held %q: %w", v.Service, delta.GetEpoch(), v.Epoch, ErrGap)
	case delta.GetRevision() <= v.Revision:
		return v, nil
	case delta.GetPrevious() != v.Revision:
		return v, fmt.Errorf("service %q: delta from %d, held %d: %w", v.Service, delta.GetPrevious(), v.Revision, ErrGap)
	}
	next := v
	next.Revision = delta.GetRevision()
	next.Instances = merge(v.Instances, delta.GetPut(), delta.GetRemove())
	return next, nil
}

// Diff returns the delta that takes from to to, both of one epoch.
func Diff(from, to View) *l5pb.Delta {
	delta := &l5pb.Delta{Service: to.Service, Epoch: to.Epoch, Previous: from.Revision, Revision: to.Revision}
	i, j := 0, 0
	for i < len(from.Instances) || j < len(to.Instances) {
		switch {
		case j == len(to.Instances) || i < len(from.Instances) && from.Instances[i].GetAddr() < to.Instances[j].GetAddr():
			delta.Remove = append(delta.Remove, from.Instances[i].GetAddr())
			i++
		case i == len(from.Instances) || to.Instances[j].GetAddr() < from.Instances[i].GetAddr():
			delta.Put = append(delta.Put, to.Instances[j])
			j++
		default:
			if from.Instances[i] != to.Instances[j] && !proto.Equal(from.Instances[i], to.Instances[j]) {
				delta.Put = append(delta.Put, to.Instances[j])
			}
			i++
			j++
		}
	}
	return delta
}

// Snapshot returns the view in wire form; the instances are shared.
func (v View) Snapshot() *l5pb.Snapshot {
	return &l5pb.Snapshot{Service: v.Service, Epoch: v.Epoch, Revision: v.Revision, Instances: v.Instances}
}

// Find returns the instance at addr, or nil.
func (v View) Find(addr string) *l5pb.Instance {
	i, ok := slices.BinarySearchFunc(v.Instances, addr, compareAddr)
	if !ok {
		return nil
	}
	return v.Instances[i]
}

func compareAddr(i *l5pb.Instance, addr string) int { return strings.Compare(i.GetAddr(), addr) }

// merge returns base with put added or replaced and remove taken out, in one pass over sorted slices.
func merge(base, put []*l5pb.Instance, remove []string) []*l5pb.Instance {
	put = slices.DeleteFunc(slices.Clone(put), func(i *l5pb.Instance) bool { return i.GetAddr() == "" })
	slices.SortStableFunc(put, func(a, b *l5pb.Instance) int { return strings.Compare(a.GetAddr(), b.GetAddr()) })
	remove = slices.Sorted(slices.Values(remove))
	out := make([]*l5pb.Instance, 0, len(base)+len(put))
	for len(base) > 0 || len(put) > 0 {
		switch {
		case len(put) > 1 && put[0].GetAddr() == put[1].GetAddr():
			put = put[1:] // the later one counts
		case len(put) == 0 || len(base) > 0 && base[0].GetAddr() < put[0].GetAddr():
			if _, gone := slices.BinarySearch(remove, base[0].GetAddr()); !gone {
				out = append(out, base[0])
			}
			base = base[1:]
		default:
			if len(base) > 0 && base[0].GetAddr() == put[0].GetAddr() {
				base = base[1:]
			}
			out = append(out, put[0])
			put = put[1:]
		}
	}
	return out
}
