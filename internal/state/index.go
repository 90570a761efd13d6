package state

import (
	"slices"
	"strings"
)

// index is an ordered set of rows that can be frozen at no cost: a B-tree whose nodes are copied when they are written
// after a freeze. What it holds under a place (the row's key, or a value that it is indexed by) comes in key order.
//
// It stands here in place of a general in-memory database: at the deck's scale a radix tree with a watch channel per
// node takes several times the memory and time; see docs/adr.
type index struct {
	root  *node
	owner *owner // of the nodes that may be written in place
	size  int
}

// owner tells nodes made since the last freeze from those that others read. Its field gives each one an address.
type owner struct{ _ byte }

// node holds items in order, and between them, unless it is a leaf, children.
type node struct {
	owner    *owner
	items    []item
	children []*node
}

// item is one row at one place.
type item struct {
	at  string
	row *entry
}

// A node has at most maxItems, and at least minItems unless it is the root or was filled in order.
const (
	maxItems = 32
	minItems = 10
)

func newIndex() *index { return &index{owner: &owner{}} }

// freeze returns the index as it is now; it never changes, and is safe for concurrent use.
func (x *index) freeze() index {
	x.owner = &owner{} // nodes of the former owner are copied before they are written
	return index{root: x.root, size: x.size}
}

// find returns where (at, key) is or belongs in the node.
func (n *node) find(at, key string) (int, bool) {
	low, high := 0, len(n.items)
	for low < high {
		mid := int(uint(low+high) >> 1)
		order := strings.Compare(n.items[mid].at, at)
		if order == 0 {
			order = strings.Compare(n.items[mid].row.key, key)
		}
		switch {
		case order == 0:
			return mid, true
		case order < 0:
			low = mid + 1
		default:
			high = mid
		}
	}
	return low, false
}

// get returns the row at the place, or nil.
func (x *index) get(at, key string) *entry {
	for n := x.root; n != nil; {
		i, found := n.find(at, key)
		if found {
			return n.items[i].row
		}
		if n.children == nil {
			return nil
		}
		n = n.children[i]
	}
	return nil
}

// ascend calls yield for the rows from (at, key) on, in order, until it returns false.
func (x *index) ascend(at, key string, yield func(item) bool) {
	if x.root != nil {
		x.root.ascend(at, key, yield)
	}
}

func (n *node) ascend(at, key string, yield func(item) bool) bool {
	i, found := n.find(at, key)
	if n.children != nil && !found && !n.children[i].ascend(at, key, yield) {
		return false
	}
	for ; i < len(n.items); i++ {
		if !yield(n.items[i]) {
			return false
		}
		if n.children != nil && !n.children[i+1].all(yield) {
			return false
		}
	}
	return true
}

func (n *node) all(yield func(item) bool) bool {
	for i, it := range n.items {
		if n.children != nil && !n.children[i].all(yield) {
			return false
		}
		if !yield(it) {
			return false
		}
	}
	return n.children == nil || n.children[len(n.items)].all(yield)
}

// own returns the node itself if it may be written, and a copy otherwise.
func (n *node) own(o *owner) *node {
	if n.owner == o {
		return n
	}
	return &node{owner: o, items: slices.Clone(n.items), children: slices.Clone(n.children)}
}

// set puts the row at the place, in the stead of one with the same key.
func (x *index) set(at string, row *entry) {
	if x.root == nil {
		x.root = &node{owner: x.owner}
	}
	x.root = x.root.own(x.owner)
	added, middle, right := x.root.set(x.owner, item{at, row})
	if right != nil {
		x.root = &node{owner: x.owner, items: []item{middle}, children: []*node{x.root, right}}
	}
	if added {
		x.size++
	}
}

// set returns whether an item was added, and, if the node had to be split, what goes up and to the right of it.
func (n *node) set(o *owner, it item) (added bool, middle item, right *node) {
	i, found := n.find(it.at, it.row.key)
	if found {
		n.items[i] = it
		return false, item{}, nil
	}
	if n.children == nil {
		n.items = slices.Insert(n.items, i, it)
		added = true
	} else {
		child := n.children[i].own(o)
		n.children[i] = child
		var up item
		var beside *node
		if added, up, beside = child.set(o, it); beside != nil {
			n.items = slices.Insert(n.items, i, up)
			n.children = slices.Insert(n.children, i+1, beside)
		}
	}
	if len(n.items) <= maxItems {
		return added, item{}, nil
	}
	// Rows that come in order, as a listing does, leave full nodes behind them and not half-full ones.
	at := len(n.items) / 2
	if i >= maxItems-1 {
		at = maxItems - 1
	}
	middle, right = n.split(o, at)
	return added, middle, right
}

// split cuts the node at an item, which it returns with what was to the right of it.
func (n *node) split(o *owner, at int) (item, *node) {
	middle := n.items[at]
	right := &node{owner: o, items: slices.Clone(n.items[at+1:])}
	if n.children != nil {
		right.children = slices.Clone(n.children[at+1:])
		n.children = slices.Clone(n.children[:at+1])
	}
	n.items = slices.Clone(n.items[:at]) // copies, so that neither half keeps the room of the whole
	return middle, right
}

// remove takes the row away from the place, if it is there.
func (x *index) remove(at, key string) {
	if x.get(at, key) == nil {
		return // so that nothing is copied for nothing
	}
	x.root = x.root.own(x.owner)
	x.root.remove(x.owner, at, key)
	x.size--
	if len(x.root.items) == 0 {
		if x.root.children == nil {
			x.root = nil
		} else {
			x.root = x.root.children[0]
		}
	}
}

// remove takes away an item that is there.
func (n *node) remove(o *owner, at, key string) {
	i, found := n.find(at, key)
	if n.children == nil {
		n.items = slices.Delete(n.items, i, i+1)
		return
	}
	child := n.children[i].own(o)
	n.children[i] = child
	if found {
		n.items[i] = child.removeLast(o) // the item before it takes its place
	} else {
		child.remove(o, at, key)
	}
	n.mend(o, i)
}

// removeLast takes away the greatest item.
func (n *node) removeLast(o *owner) item {
	last := len(n.items)
	if n.children == nil {
		it := n.items[last-1]
		n.items = slices.Delete(n.items, last-1, last)
		return it
	}
	child := n.children[last].own(o)
	n.children[last] = child
	it := child.removeLast(o)
	n.mend(o, last)
	return it
}

// mend fills up a child that has become too small, from a sibling or by joining the two.
func (n *node) mend(o *owner, i int) {
	if len(n.children[i].items) >= minItems {
		return
	}
	if i == len(n.items) {
		i-- // the last child: pair it with the one before
	}
	left, right := n.children[i].own(o), n.children[i+1].own(o)
	n.children[i], n.children[i+1] = left, right
	if len(left.items)+1+len(right.items) <= maxItems {
		left.items = append(append(left.items, n.items[i]), right.items...)
		left.children = append(left.children, right.children...)
		n.items = slices.Delete(n.items, i, i+1)
		n.children = slices.Delete(n.children, i+1, i+2)
		return
	}
	for len(left.items) < minItems {
		left.items, n.items[i] = append(left.items, n.items[i]), right.items[0]
		right.items = slices.Delete(right.items, 0, 1)
		if right.children != nil {
			left.children = append(left.children, right.children[0])
			right.children = slices.Delete(right.children, 0, 1)
		}
	}
	for len(right.items) < minItems {
		last := len(left.items) - 1
		right.items, n.items[i] = slices.Insert(right.items, 0, n.items[i]), left.items[last]
		left.items = slices.Delete(left.items, last, last+1)
		if left.children != nil {
			right.children = slices.Insert(right.children, 0, left.children[last+1])
			left.children = slices.Delete(left.children, last+1, last+2)
		}
	}
}
