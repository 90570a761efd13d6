package server

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Several servers share one store. Each keeps a few records there, under leasePrefix: a beat, which says that it lives, and
// the owners whose streams it holds. One of them, the keeper, decides what becomes of owners that nobody holds.
const (
	leasePrefix  = "lease/"
	beatPrefix   = leasePrefix + "server/" // + server: a number that grows
	holdsPrefix  = leasePrefix + "holds/"  // + server + "/" + shard: owners, one per line
	keeperKey    = leasePrefix + "keeper"  // the server that decides
	expiriesKey  = leasePrefix + "expired" // what expired lately, one per line: Unix milliseconds and service
	holdsShards  = 64
	beatsToDeath = 5 // a server that was silent for so many beats is dead
)

// tenure is what one server knows of all: who lives, who holds which owner, and since when an owner is lost. It is pure:
// time comes in, and so do the store's records; times are those at which this server saw something change, so that the clocks
// of servers are never compared.
//
//	           first beat            silent for beatsToDeath, or its record is gone
//	(unknown) -----------> alive <-------------------------------------------------> dead
//	                              the next beat
//
//	owner:     held by a server that is alive            by none
//	(unknown) ------------------------------> live <-----------------> lost(since)
//
// A server that does not see its own beats come back, because it was paused, its clock jumped or the store is away, sees
// nobody else's either: it judges nobody, and once they come again everybody's silence counts from then.
type tenure struct {
	self string
	beat time.Duration

	servers map[string]*peer
	holders map[string]int       // by owner: other servers that hold it and are alive
	local   map[string]int       // by owner: streams of this server
	lost    map[string]time.Time // by owner: since when nobody holds it
	events  []OwnerEvent         // owners that came or went, not yet taken
	keeper  string
	fence   int64 // revision of the keeper's record; 0: there is none
	blind   bool

	plantedBug string
}

// peer is one server as another sees it.
type peer struct {
	beat  string // as last seen
	seen  time.Time
	alive bool
	holds map[string][]string // owners by shard
}

func newTenure(self string, beat time.Duration) *tenure {
	return &tenure{
		self: self, beat: beat, servers: make(map[string]*peer), holders: make(map[string]int), local: make(map[string]int),
		lost: make(map[string]time.Time),
	}
}

// put takes a record.
func (t *tenure) put(now time.Time, record store.Record) {
	if server, ok := strings.CutPrefix(record.Key, beatPrefix); ok {
		p := t.server(server)
		if p.beat != string(record.Value) {
			p.beat, p.seen = string(record.Value), now
			t.judge(now, server, p)
		}
		return
	}
	if rest, ok := strings.CutPrefix(record.Key, holdsPrefix); ok {
		server, shard, _ := strings.Cut(rest, "/")
		owners := slices.DeleteFunc(strings.Split(string(record.Value), "\n"), func(owner string) bool { return owner == "" })
		if !slices.IsSorted(owners) {
			slices.Sort(owners)
		}
		t.holds(now, server, shard, slices.Compact(owners))
		return
	}
	if record.Key == keeperKey {
		t.keeper, t.fence = string(record.Value), record.Revision
	}
}

// remove takes the removal of a record.
func (t *tenure) remove(now time.Time, key string) {
	if server, ok := strings.CutPrefix(key, beatPrefix); ok {
		if p := t.servers[server]; p != nil {
			p.beat = ""
			t.judge(now, server, p)
			t.forget(server, p)
		}
		return
	}
	if rest, ok := strings.CutPrefix(key, holdsPrefix); ok {
		server, shard, _ := strings.Cut(rest, "/")
		t.holds(now, server, shard, nil)
		return
	}
	if key == keeperKey {
		t.keeper, t.fence = "", 0
	}
}

func (t *tenure) server(name string) *peer {
	p := t.servers[name]
	if p == nil {
		p = &peer{holds: make(map[string][]string)}
		t.servers[name] = p
	}
	return p
}

func (t *tenure) forget(name string, p *peer) {
	if p.beat == "" && len(p.holds) == 0 {
		delete(t.servers, name)
	}
}

// holds takes the owners of one shard of a server.
func (t *tenure) holds(now time.Time, server, shard string, owners []string) {
	p := t.server(server)
	before := p.holds[shard]
	if len(owners) == 0 {
		delete(p.holds, shard)
		t.forget(server, p)
	} else {
		p.holds[shard] = owners
	}
	counts := server != t.self && p.alive
	// Both are in order. Who is in both has not moved, and most are: those keep their name, so that of a record that was
	// replaced nothing stays.
	for len(owners) > 0 || len(before) > 0 {
		switch {
		case len(before) == 0 || len(owners) > 0 && owners[0] < before[0]:
			if owners[0] = strings.Clone(owners[0]); counts {
				t.count(now, owners[0], 1)
			}
			owners = owners[1:]
		case len(owners) == 0 || before[0] < owners[0]:
			if counts {
				t.count(now, before[0], -1)
			}
			before = before[1:]
		default:
			owners[0] = before[0]
			owners, before = owners[1:], before[1:]
		}
	}
}

// judge decides whether a server is alive.
func (t *tenure) judge(now time.Time, name string, p *peer) {
	alive := p.beat != "" && now.Sub(p.seen) < beatsToDeath*t.beat
	if alive == p.alive {
		return
	}
	p.alive = alive
	if name == t.self {
		return
	}
	step := 1
	if !alive {
		step = -1
	}
	for _, owners := range p.holds {
		for _, owner := range owners {
			t.count(now, owner, step)
		}
	}
}

// count adds to the other servers that hold an owner.
func (t *tenure) count(now time.Time, owner string, step int) {
	before := t.holders[owner]
	after := before + step
	if after > 0 {
		t.holders[owner] = after
	} else {
		delete(t.holders, owner)
	}
	if (before > 0) != (after > 0) && t.local[owner] <= 0 {
		t.moved(now, owner, before > 0)
	}
}

// stream adds to this server's own streams of an owner, and reports whether that changes what it holds.
func (t *tenure) stream(now time.Time, owner string, step int) bool {
	was, held := t.live(owner), t.local[owner] > 0
	if t.local[owner] += step; t.local[owner] <= 0 {
		delete(t.local, owner)
	}
	t.moved(now, owner, was)
	return held != (t.local[owner] > 0)
}

// moved notes an owner that came or went.
func (t *tenure) moved(now time.Time, owner string, was bool) {
	is := t.live(owner)
	if is == was {
		return
	}
	if is {
		delete(t.lost, owner)
	} else {
		t.lost[owner] = now
	}
	t.events = append(t.events, OwnerEvent{Owner: owner, Live: is})
}

// live reports whether any server holds a stream of an owner.
func (t *tenure) live(owner string) bool { return t.local[owner] > 0 || t.holders[owner] > 0 }

// owners returns who is live, in order.
func (t *tenure) owners() []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(t.local)), maps.Keys(t.holders))
	slices.Sort(all)
	return slices.Compact(all)
}

// expect begins the time of an owner who has something and is held by nobody.
func (t *tenure) expect(now time.Time, owner string) {
	if _, known := t.lost[owner]; owner != "" && !known && !t.live(owner) {
		t.lost[owner] = now
	}
}

// tick judges the silent.
func (t *tenure) tick(now time.Time) {
	me := t.servers[t.self]
	blind := me == nil || now.Sub(me.seen) > beatsToDeath*t.beat/2
	if t.plantedBug == "a blind server judges" {
		blind = false
	}
	if t.blind && !blind {
		for _, p := range t.servers {
			p.seen = now
		}
		for owner := range t.lost {
			t.lost[owner] = now
		}
	}
	t.blind = blind
	if blind {
		return
	}
	for name, p := range t.servers {
		if p.seen.After(now) {
			p.seen = now // the clock went back
		}
		t.judge(now, name, p)
	}
	for owner, since := range t.lost {
		if since.After(now) {
			t.lost[owner] = now
		}
	}
}

// leads reports whether this server is the keeper. What it writes as such depends on fence.
func (t *tenure) leads() bool { return t.keeper == t.self && !t.blind }

// vacant reports whether this server should try to become the keeper.
func (t *tenure) vacant() bool {
	if t.blind || t.keeper == t.self {
		return false
	}
	p := t.servers[t.keeper]
	return t.keeper == "" || p == nil || !p.alive
}

// alone reports whether no other server is known: then nobody else takes its streams for lost.
func (t *tenure) alone() bool {
	for name, p := range t.servers {
		if name != t.self && p.beat != "" {
			return false
		}
	}
	return true
}

// due returns the owners that were lost for at least so long, in order.
func (t *tenure) due(now time.Time, grace time.Duration) []string {
	if t.blind {
		return nil
	}
	var out []string
	for owner, since := range t.lost {
		if now.Sub(since) >= grace {
			out = append(out, owner)
		}
	}
	slices.Sort(out)
	return out
}

// remains returns keys of servers that have been dead for long.
func (t *tenure) remains(now time.Time) []string {
	var keys []string
	for name, p := range t.servers {
		if name == t.self || p.alive || now.Sub(p.seen) < 10*beatsToDeath*t.beat {
			continue
		}
		keys = append(keys, beatPrefix+name)
		for shard := range p.holds {
			keys = append(keys, holdsPrefix+name+"/"+shard)
		}
	}
	slices.Sort(keys)
	return keys
}

// take returns who came or went since the last call, in order.
func (t *tenure) take() []OwnerEvent {
	events := t.events
	t.events = nil
	return events
}

// shardOf says in which shard of its server's holds an owner stands.
func shardOf(owner string) string {
	var h uint32 = 2166136261 // FNV-1a
	for i := range len(owner) {
		h = (h ^ uint32(owner[i])) * 16777619
	}
	return strconv.FormatUint(uint64(h%holdsShards), 16)
}

// hold returns the operations that write what this server holds in some shards.
func (t *tenure) hold(shards map[string]struct{}) []store.Op {
	owners := make(map[string][]string, len(shards))
	for owner := range t.local {
		if shard := shardOf(owner); has(shards, shard) {
			owners[shard] = append(owners[shard], owner)
		}
	}
	var ops []store.Op
	for _, shard := range slices.Sorted(maps.Keys(shards)) {
		key := holdsPrefix + t.self + "/" + shard
		if len(owners[shard]) == 0 {
			ops = append(ops, store.Delete(key))
			continue
		}
		slices.Sort(owners[shard])
		ops = append(ops, store.Put(key, []byte(strings.Join(owners[shard], "\n"))))
	}
	return ops
}

func has(set map[string]struct{}, key string) bool {
	_, ok := set[key]
	return ok
}
