package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	wire "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/door"
)

// udpSize is the largest answer over UDP, whatever the query allows: it passes everywhere without fragments.
const udpSize = 1232

// Door is a DNS server for one zone. It is safe for concurrent use.
type Door struct {
	config  Config
	zone    zone
	names   door.Names
	cache   cache
	slots   chan struct{} // one per query under way
	started atomic.Bool
	ready   chan struct{} // closed when addr is set
	addr    net.Addr
	answers *prometheus.CounterVec
}

// New reports all faults of config at once, and opens nothing.
func New(config Config) (*Door, error) {
	config, err := config.check()
	if err != nil {
		return nil, err
	}
	d := &Door{
		config: config, names: door.Bound(config.Names, config.MaxNames, 5*time.Minute), slots: make(chan struct{}, config.MaxQueries),
		zone:  zone{origin: config.Zone, ttl: uint32((config.TTL + time.Second - 1) / time.Second), most: config.MaxAnswers},
		cache: cache{most: config.MaxNames, kept: make(map[string]*decks)}, ready: make(chan struct{}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "zhiyun_l5_door_dns_answers_total", Help: "Answers by response code."}, []string{"rcode"}),
	}
	if config.Metrics != nil {
		if err := config.Metrics.Register(d.answers); err != nil {
			return nil, fmt.Errorf("l5/door/dns: register metrics: %w", err)
		}
	}
	return d, nil
}

// Run serves until ctx ends, and returns nil then. It is called once.
func (d *Door) Run(ctx context.Context) error {
	if !d.started.CompareAndSwap(false, true) {
		return errors.New("l5/door/dns: Run was called twice; make a new door")
	}
	tcp, udp, err := d.listen()
	if err != nil {
		return fmt.Errorf("l5/door/dns: %w", err)
	}
	defer tcp.Close()
	defer udp.Close()
	d.addr = tcp.Addr()
	close(d.ready)
	d.config.Logger.Info("l5/door/dns: serving", "addr", d.addr.String(), "zone", d.config.Zone)
	servers := []*wire.Server{{Listener: tcp}, {PacketConn: udp, UDPSize: udpSize}}
	group, inner := errgroup.WithContext(ctx)
	for _, s := range servers {
		s.Handler = wire.HandlerFunc(d.serve)
		s.ReadTimeout, s.WriteTimeout = 2*time.Second, 2*time.Second
		s.IdleTimeout = func() time.Duration { return 8 * time.Second }
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		group.Go(s.ActivateAndServe)
		group.Go(func() error {
			<-inner.Done()
			select {
			case <-up: // Shutdown refuses before
			default:
				return nil
			}
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = s.ShutdownContext(stop) // what is still under way after a second is dropped
			return nil
		})
	}
	context.AfterFunc(inner, func() { tcp.Close(); udp.Close() })
	err = group.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("l5/door/dns: %w", err)
}

// listen opens TCP and UDP on one port.
func (d *Door) listen() (net.Listener, net.PacketConn, error) {
	for attempt := 0; ; attempt++ {
		tcp, err := door.Listen(d.config.Listen, d.config.MaxConns)
		if err != nil {
			return nil, nil, err
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			return tcp, udp, nil
		}
		tcp.Close()
		if _, port, _ := net.SplitHostPort(d.config.Listen); port != "0" || attempt == 10 {
			return nil, nil, err
		}
	}
}

// Addr waits until the door listens and returns where.
func (d *Door) Addr(ctx context.Context) (net.Addr, error) {
	select {
	case <-d.ready:
		return d.addr, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("l5/door/dns: not listening yet; is Run running? %w", context.Cause(ctx))
	}
}

// serve answers one query.
func (d *Door) serve(w wire.ResponseWriter, request *wire.Msg) {
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	default:
		d.answers.WithLabelValues("dropped").Inc()
		return // silence makes a resolver wait and ask again; an error would be passed on
	}
	reply := d.reply(request)
	size := wire.MaxMsgSize
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		size = wire.MinMsgSize
		if opt := request.IsEdns0(); opt != nil {
			size = min(max(int(opt.UDPSize()), wire.MinMsgSize), udpSize)
		}
	}
	reply.Truncate(size)
	d.answers.WithLabelValues(wire.RcodeToString[reply.Rcode]).Inc()
	_ = w.WriteMsg(reply) // a client that is gone asks again or not at all
}

// reply makes the answer to a query.
func (d *Door) reply(request *wire.Msg) *wire.Msg {
	reply := new(wire.Msg)
	if len(request.Question) != 1 {
		return reply.SetRcode(request, wire.RcodeFormatError)
	}
	reply.SetReply(request)
	reply.Compress = true
	if opt := request.IsEdns0(); opt != nil {
		reply.SetEdns0(udpSize, false)
		if opt.Version() != 0 {
			reply.Rcode = wire.RcodeBadVers
			return reply
		}
	}
	q := d.zone.parse(request.Question[0].Name)
	if request.Opcode != wire.OpcodeQuery {
		reply.Rcode = wire.RcodeNotImplemented
		return reply
	}
	if q.kind == foreign || request.Question[0].Qclass != wire.ClassINET {
		reply.Rcode = wire.RcodeRefused
		return reply
	}
	reply.Authoritative = true
	d.fill(reply, q, request.Question[0].Qtype)
	if len(reply.Answer) == 0 && (reply.Rcode == wire.RcodeSuccess || reply.Rcode == wire.RcodeNameError) {
		reply.Ns = append(reply.Ns, d.zone.soa())
	}
	return reply
}

// fill sets the reply's code and records.
func (d *Door) fill(reply *wire.Msg, q question, qtype uint16) {
	var drawn []host
	var heaviest float64
	switch q.kind {
	case apex:
		if qtype == wire.TypeSOA {
			reply.Answer = append(reply.Answer, d.zone.soa())
			return
		}
	case noService:
		if !d.cache.below(q.labels) {
			reply.Rcode = wire.RcodeNameError
		}
		return
	case anAddress:
		if qtype == wire.TypeSRV {
			return
		}
		drawn = []host{{addr: q.addr}}
	case aService:
		known, ok := d.lookup(reply, q)
		if !ok {
			return
		}
		var from *deck
		switch qtype {
		case wire.TypeA:
			from = known.v4
		case wire.TypeAAAA:
			from = known.v6
		case wire.TypeSRV:
			from = known.instances
		}
		if from != nil {
			drawn, heaviest = from.draw(d.zone.most, rand.New(source{})), from.heaviest
		}
	}
	switch qtype {
	case wire.TypeA, wire.TypeAAAA, wire.TypeSRV:
		d.zone.answer(reply, qtype, drawn, heaviest)
	case wire.TypeANY:
		reply.Answer = append(reply.Answer, d.zone.any(reply.Question[0].Name))
	}
}

// lookup returns what a service's answers are drawn from, or sets the reply's code.
func (d *Door) lookup(reply *wire.Msg, q question) (*decks, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), d.config.Wait)
	defer cancel()
	view, changed, err := d.names.Lookup(ctx, d.config.Caller, q.service)
	switch {
	case errors.Is(err, l5.ErrDenied):
		reply.Rcode, reply.Authoritative = wire.RcodeRefused, false
		return nil, false
	case err != nil:
		reply.Rcode, reply.Authoritative = wire.RcodeServerFailure, false
		return nil, false
	}
	known := d.decks(view, changed)
	if known.members == 0 && !d.cache.below(q.labels) {
		reply.Rcode = wire.RcodeNameError
		return nil, false
	}
	return known, true
}

func (d *Door) decks(view agent.View, changed <-chan struct{}) *decks {
	return d.cache.get(view, changed, d.config.MaxAnswers)
}

// source is the process's own source of randomness.
type source struct{}

// Uint64 implements rand.Source.
func (source) Uint64() uint64 { return rand.Uint64() }
