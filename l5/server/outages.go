package server

import (
	"cmp"
	"context"
	"strings"
	"sync"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

const (
	// maxOutages bounds what one owner may say.
	maxOutages = 4096
	// maxReason bounds the words of one outage, in bytes.
	maxReason = 200
)

// outages is what owners say about the addresses at which nothing of theirs serves. An owner speaks for all that is
// registered under its lease, whoever registered it, and for nothing else; it says all of it again from time to time, so
// that what another server registered for it meanwhile is caught up with.
//
// An instance below its full share is left alone: it is on trial, and what its callers meet there is what it is judged on.
type outages struct {
	mu   sync.Mutex
	said map[string]map[string]outage // guarded by mu; by owner and address
}

type outage struct {
	reason   string
	settling bool
}

func newOutages() *outages { return &outages{said: make(map[string]map[string]outage)} }

// hear takes all that an owner says.
func (o *outages) hear(owner string, said *l5pb.Outages) {
	list := said.GetOutages()
	if len(list) > maxOutages {
		list = list[:maxOutages]
	}
	now := make(map[string]outage, len(list))
	for _, out := range list {
		reason := out.GetReason()
		reason = strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
		now[out.GetAddr()] = outage{cmp.Or(reason, "no reason given"), out.GetSettling()}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.said[owner] = now
}

// forget drops what an owner said: its last stream to this server is gone.
func (o *outages) forget(owner string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.said, owner)
}

// of returns what an owner says about an address; known is false if it said nothing to this server.
func (o *outages) of(owner, addr string) (out outage, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	said, known := o.said[owner]
	return said[addr], known
}

// down is why an instance that stands as have is to be down. others counts the instances of its service that take calls,
// without it.
func (o *outages) down(have l5.Instance, others func(id) int) string {
	out, known := o.of(have.Owner, have.Addr)
	switch {
	case !known || have.Owner == "":
		return have.Down
	case have.Share < 100:
		return ""
	case out.settling && have.Down == "":
		return "" // it is in use, as by the server that took it for the last one
	case out.settling && others(id{have.Service, have.Addr}) == 0:
		return ""
	case out.settling:
		return have.Down // why it ended says more than that it is waited with
	}
	return out.reason
}

// settle makes the rows of an owner agree with what it says.
func (s *Server) settle(ctx context.Context, owner string) error {
	var names []id
	for _, name := range s.registry.ownedBy(owner) {
		if have := s.registry.get(name); have != nil && s.outages.down(have.Instance, s.registry.others) != have.Down {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	_, err := s.registry.edit(ctx, names, func(name id, have *row) (l5.Instance, verb) {
		if have == nil || have.Owner != owner {
			return l5.Instance{}, leave
		}
		next := have.Instance
		if next.Down = s.outages.down(have.Instance, s.registry.others); next.Down == have.Down {
			return next, leave
		}
		return next, put
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		if have := s.registry.get(name); have != nil {
			s.config.Logger.Info("l5/server: instance", "service", name.service, "addr", name.addr, "owner", owner, "down", have.Down)
		}
	}
	return nil
}

// others counts the instances of name's service that take calls, without it.
func (r *registry) others(name id) int {
	count := 0
	for _, have := range r.list(name.service) {
		if have.Addr != name.addr && have.EffectiveWeight() > 0 {
			count++
		}
	}
	return count
}
