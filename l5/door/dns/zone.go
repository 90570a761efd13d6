package dns

import (
	"encoding/hex"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"

	wire "github.com/miekg/dns"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
)

// addrLabel is the domain below which addresses have names.
const addrLabel = "addr"

// zone makes answers. It is pure: no clock, no I/O, and randomness is handed in.
type zone struct {
	origin string // lower case, with the dot at the end
	ttl    uint32
	most   int
}

// question is what a query asks for, once its name is understood.
type question struct {
	kind    kind
	service string     // of aService
	addr    netip.Addr // of anAddress
	labels  string     // the name below the zone
}

type kind uint8

const (
	foreign   kind = iota // not of this zone
	apex                  // the zone itself
	noService             // a name that no service can have
	aService
	anAddress
	empty // nothing itself, but others are below it
)

// parse understands a name.
func (z zone) parse(name string) question {
	name = strings.ToLower(name)
	if name == z.origin {
		return question{kind: apex}
	}
	below, ok := strings.CutSuffix(name, "."+z.origin)
	if !ok {
		return question{kind: foreign}
	}
	q := question{kind: noService, labels: below}
	if below == addrLabel {
		q.kind = empty
		return q
	}
	if label, ok := strings.CutSuffix(below, "."+addrLabel); ok {
		if raw, err := hex.DecodeString(label); err == nil {
			if addr, ok := netip.AddrFromSlice(raw); ok {
				q.kind, q.addr = anAddress, addr
				return q
			}
		}
	}
	if first, rest, ok := strings.Cut(below, "."); ok && strings.HasPrefix(first, "_") { // RFC 2782: _service._proto.name
		if first == "_tcp" || first == "_udp" {
			q.kind = empty
			return q
		}
		if proto, service, ok := strings.Cut(rest, "."); ok && (proto == "_tcp" || proto == "_udp") {
			below = service
		}
	}
	if l5.CheckService(below) == nil {
		q.kind, q.service = aService, below
	}
	return q
}

// host is an instance as DNS can tell of it.
type host struct {
	addr   netip.Addr // invalid if name is set
	name   string     // lower case, with the dot at the end
	port   uint16
	weight float64
}

// hosts returns those that take calls.
func hosts(view agent.View) []host {
	out := make([]host, 0, len(view.Members))
	for _, m := range view.Members {
		text, port, err := net.SplitHostPort(m.Addr)
		n, perr := strconv.ParseUint(port, 10, 16)
		if m.Weight <= 0 || err != nil || perr != nil {
			continue
		}
		h := host{port: uint16(n), weight: m.Weight}
		if addr, err := netip.ParseAddr(text); err == nil {
			h.addr = addr.Unmap().WithZone("")
		} else if _, ok := wire.IsDomainName(text); ok {
			h.name = strings.ToLower(wire.Fqdn(text))
		} else {
			continue
		}
		out = append(out, h)
	}
	return out
}

// answer adds the records for q to reply, of those hosts that were drawn, in their order. heaviest is the largest weight.
func (z zone) answer(reply *wire.Msg, qtype uint16, drawn []host, heaviest float64) {
	name := reply.Question[0].Name // as it was asked, for resolvers that check its case
	header := func(name string, rrtype uint16) wire.RR_Header {
		return wire.RR_Header{Name: name, Rrtype: rrtype, Class: wire.ClassINET, Ttl: z.ttl}
	}
	address := func(name string, addr netip.Addr) wire.RR {
		if addr.Is4() {
			return &wire.A{Hdr: header(name, wire.TypeA), A: addr.AsSlice()}
		}
		return &wire.AAAA{Hdr: header(name, wire.TypeAAAA), AAAA: addr.AsSlice()}
	}
	seen := make(map[netip.Addr]bool, len(drawn))
	for _, h := range drawn {
		fresh := h.addr.IsValid() && !seen[h.addr]
		switch {
		case qtype == wire.TypeSRV:
			target := h.name
			if h.addr.IsValid() {
				target = hex.EncodeToString(h.addr.AsSlice()) + "." + addrLabel + "." + z.origin
			}
			reply.Answer = append(reply.Answer, &wire.SRV{
				Hdr: header(name, wire.TypeSRV), Weight: srvWeight(h.weight, heaviest), Port: h.port, Target: target,
			})
			if fresh {
				reply.Extra = append(reply.Extra, address(target, h.addr))
			}
		case fresh && h.addr.Is4() == (qtype == wire.TypeA):
			reply.Answer = append(reply.Answer, address(name, h.addr))
		}
		seen[h.addr] = true
	}
}

// srvWeight scales weights so that ratios survive: the heaviest host has 1000, and none that takes calls has 0, which
// would mean almost never.
func srvWeight(weight, heaviest float64) uint16 {
	return uint16(max(1, math.Round(1000*weight/heaviest)))
}

// soa is the authority of negative answers; its minimum says how long they hold.
func (z zone) soa() wire.RR {
	return &wire.SOA{
		Hdr: wire.RR_Header{Name: z.origin, Rrtype: wire.TypeSOA, Class: wire.ClassINET, Ttl: z.ttl},
		Ns:  "ns." + z.origin, Mbox: "hostmaster." + z.origin, Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: z.ttl,
	}
}

// any is the one record that RFC 8482 has for those who ask for all.
func (z zone) any(name string) wire.RR {
	return &wire.HINFO{Hdr: wire.RR_Header{Name: name, Rrtype: wire.TypeHINFO, Class: wire.ClassINET, Ttl: z.ttl}, Cpu: "RFC8482"}
}
