package dns

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/balance"
)

// deck is what answers for one service and one type of record are drawn from, made once per state.
type deck struct {
	hosts    []host
	picker   *balance.Picker // nil if all hosts fit an answer
	heaviest float64
}

// newDeck makes a deck of those hosts that keep says can answer.
func newDeck(all []host, most int, keep func(host) bool) *deck {
	d := &deck{hosts: make([]host, 0, len(all))}
	var candidates []balance.Candidate
	for _, h := range all {
		if keep(h) {
			d.hosts = append(d.hosts, h)
			candidates = append(candidates, balance.Candidate{Weight: h.weight})
			d.heaviest = max(d.heaviest, h.weight)
		}
	}
	if len(d.hosts) > most {
		d.picker = balance.NewPicker(balance.WeightedRandom, candidates, 0)
	}
	return d
}

// draw returns at most most hosts, without a double, in an order that weights decide: that of A-Res (Efraimidis and
// Spirakis, 2006) if all fit; else the first different ones of draws with replacement, which is the same order.
func (d *deck) draw(most int, random *rand.Rand) []host {
	if d.picker == nil {
		type keyed struct {
			host
			key float64
		}
		order := make([]keyed, len(d.hosts))
		for i, h := range d.hosts {
			order[i] = keyed{h, -math.Log(1-random.Float64()) / h.weight}
		}
		slices.SortFunc(order, func(a, b keyed) int {
			if a.key < b.key {
				return -1
			}
			return 1
		})
		out := make([]host, len(order))
		for i := range order {
			out[i] = order[i].host
		}
		return out
	}
	seen := make(map[int]bool, most)
	out := make([]host, 0, most)
	for range 8 * most { // a few hosts of nearly all the weight would keep it drawing
		i, _ := d.picker.Pick(random.Uint64(), 0)
		if !seen[i] {
			seen[i] = true
			if out = append(out, d.hosts[i]); len(out) == most {
				break
			}
		}
	}
	return out
}

// decks are those of one service.
type decks struct {
	changed   <-chan struct{}
	members   int // registered
	v4, v6    *deck
	instances *deck // for SRV
}

// cache keeps decks until the service changes. It is safe for concurrent use.
type cache struct {
	most int // names

	mu   sync.Mutex
	kept map[string]*decks // guarded by mu
}

// get returns the decks of a state; changed is the channel that came with it.
func (c *cache) get(view agent.View, changed <-chan struct{}, most int) *decks {
	c.mu.Lock()
	kept := c.kept[view.Service]
	c.mu.Unlock()
	if kept != nil && kept.changed == changed {
		return kept
	}
	all := hosts(view)
	kept = &decks{
		changed: changed, members: len(view.Members),
		v4: newDeck(all, most, func(h host) bool { return h.addr.Is4() }), v6: newDeck(all, most, func(h host) bool { return h.addr.Is6() }),
		instances: newDeck(all, most, func(host) bool { return true }),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept[view.Service] == nil && len(c.kept) >= c.most {
		for other := range c.kept {
			delete(c.kept, other) // any one: it is made again when it is asked for
			break
		}
	}
	c.kept[view.Service] = kept
	return kept
}

// below reports whether a known service with instances has a name below labels.
func (c *cache) below(labels string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for service, d := range c.kept {
		if cut := len(service) - len(labels) - 1; d.members > 0 && cut > 0 && service[cut] == '.' && service[cut+1:] == labels {
			return true
		}
	}
	return false
}
