package link

import (
	"maps"
	"slices"
	"unique"

	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// maxLabels bounds the label sets that are remembered; beyond it they are forgotten and gathered anew.
const maxLabels = 10_000

// interner makes instances share what is the same in many: module, owner, labels. What comes off the wire has a copy of its own
// of each, which is most of an instance's memory. It is for one goroutine.
type interner struct {
	labels map[string]map[string]string
	keys   []string
	text   []byte
}

// intern shares what the instances of next have in common with others; those that held has, it did already. They are
// not in use yet.
func (n *interner) intern(held, next view.View) {
	for _, p := range next.Instances {
		if held.Find(p.GetAddr()) == p {
			continue
		}
		if p.Owner == p.Device {
			p.Owner = p.Device
		} else if p.Owner != "" {
			p.Owner = unique.Make(p.Owner).Value()
		}
		if p.Module != "" {
			p.Module = unique.Make(p.Module).Value()
		}
		n.share(p)
	}
}

func (n *interner) share(p *l5pb.Instance) {
	if len(p.Labels) == 0 {
		return
	}
	n.keys, n.text = slices.AppendSeq(n.keys[:0], maps.Keys(p.Labels)), n.text[:0]
	slices.Sort(n.keys)
	for _, key := range n.keys {
		n.text = append(append(append(append(n.text, key...), 0), p.Labels[key]...), 0)
	}
	if shared, ok := n.labels[string(n.text)]; ok && maps.Equal(shared, p.Labels) {
		p.Labels = shared
		return
	}
	if n.labels == nil || len(n.labels) >= maxLabels {
		n.labels = make(map[string]map[string]string)
	}
	n.labels[string(n.text)] = p.Labels
}
