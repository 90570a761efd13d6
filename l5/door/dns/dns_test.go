package dns_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/door"
	"github.com/zhiyun-ops/zhiyun/l5/door/dns"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// only grants all but one service.
type only string

func (o only) MayCall(_, service string) bool { return service != string(o) }
func (only) Changed() <-chan struct{}         { return nil }

// serve runs a door over an agent of a server with some services.
func serve(t testing.TB, edit func(*dns.Config)) (addr string, s *l5test.Server) {
	t.Helper()
	s = l5test.NewServer(t, func(c *server.Config) { c.Grants = only("shop.secret") })
	big := make([]l5.Instance, 300)
	for i := range big {
		big[i] = l5.Instance{Service: "shop.big", Addr: fmt.Sprintf("10.1.%d.%d:80", i/100, i%100), Share: 100}
	}
	register(t, s, append(big,
		l5.Instance{Service: "shop.cart", Addr: "10.0.0.1:8001", Share: 100, Weight: 300},
		l5.Instance{Service: "shop.cart", Addr: "10.0.0.2:8002", Share: 100},
		l5.Instance{Service: "shop.cart", Addr: "[2001:db8::1]:8003", Share: 100},
		l5.Instance{Service: "shop.cart", Addr: "10.0.0.9:8009", Share: 0},
		l5.Instance{Service: "shop.six", Addr: "[2001:db8::2]:80", Share: 100},
		l5.Instance{Service: "shop.named", Addr: "db.example.org:5432", Share: 100},
		l5.Instance{Service: "shop.dark", Addr: "10.0.0.3:80", Share: 0},
		l5.Instance{Service: "shop.secret", Addr: "10.0.0.4:80", Share: 100},
	)...)
	a, _ := l5test.Agent(t, s.Target(), nil)
	return run(t, a, edit), s
}

func register(t testing.TB, s *l5test.Server, instances ...l5.Instance) {
	t.Helper()
	if err := s.Name().Register(t.Context(), instances); err != nil {
		t.Fatal(err)
	}
}

func run(t testing.TB, names door.Names, edit func(*dns.Config)) string {
	t.Helper()
	config := dns.Config{Names: names, Caller: "test", Listen: "127.0.0.1:0"}
	if edit != nil {
		edit(&config)
	}
	d, err := dns.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	addr, err := d.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return addr.String()
}

// dig asks with BIND's own client and returns its whole answer.
func dig(t *testing.T, addr string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("dig")
	if err != nil {
		if os.Getenv("ZHIYUN_REQUIRE") == "1" {
			t.Fatal("dig is required and not installed (bind9-dnsutils)")
		}
		t.Skip("dig is not installed (bind9-dnsutils)")
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, append([]string{"@" + host, "-p", port, "+time=30", "+tries=1"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("dig %v: %v: %s", args, err, out)
	}
	return string(out)
}

func TestDig(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t, nil)
	for _, c := range []struct {
		args       string
		want, none []string
	}{
		{"shop.cart.l5 A", []string{"status: NOERROR", "ANSWER: 2,", "10.0.0.1", "10.0.0.2", " aa "}, []string{"10.0.0.9"}},
		{"shop.cart.l5 A +tcp", []string{"ANSWER: 2,", "(TCP)"}, nil},
		{"SHOP.Cart.L5 A", []string{"ANSWER: 2,", "SHOP.Cart.L5.\t"}, nil},
		{"shop.cart.l5 AAAA", []string{"ANSWER: 1,", "2001:db8::1"}, nil},
		{"shop.cart.l5 SRV", []string{"ANSWER: 3,", "0 1000 8001 0a000001.addr.l5.", "0 333 8002 0a000002.addr.l5.", "0 333 8003 20010db8000000000000000000000001.addr.l5."}, []string{"8009"}},
		{"_http._tcp.shop.cart.l5 SRV", []string{"ANSWER: 3,", "ADDITIONAL: 4"}, nil},
		{"_tcp.shop.cart.l5 SRV", []string{"NOERROR", "ANSWER: 0,", "SOA"}, nil},
		{"0a000001.addr.l5 A", []string{"ANSWER: 1,", "10.0.0.1"}, nil},
		{"0a000001.addr.l5 AAAA", []string{"NOERROR", "ANSWER: 0,", "SOA"}, nil},
		{"shop.named.l5 SRV", []string{"ANSWER: 1,", "5432 db.example.org."}, nil},
		{"shop.named.l5 A", []string{"NOERROR", "ANSWER: 0,", "SOA"}, nil},
		{"shop.six.l5 A", []string{"NOERROR", "ANSWER: 0,", "AUTHORITY: 1", "SOA"}, nil},
		{"shop.dark.l5 A", []string{"NOERROR", "ANSWER: 0,", "SOA"}, []string{"10.0.0.3"}},
		{"shop.cart.l5 TXT", []string{"NOERROR", "ANSWER: 0,", "SOA"}, nil},
		{"shop.cart.l5 ANY", []string{"RFC8482"}, nil},
		{"shop.nobody.l5 A", []string{"NXDOMAIN", "AUTHORITY: 1", "SOA"}, nil},
		{"bad%20name.l5 A", []string{"NXDOMAIN"}, nil},
		{"cart.l5 A", []string{"NOERROR", "ANSWER: 0,"}, nil}, // shop.cart.l5 is below it
		{"l5 SOA", []string{"ANSWER: 1,"}, nil},
		{"l5 A", []string{"NOERROR", "ANSWER: 0,"}, nil},
		{"shop.secret.l5 A", []string{"REFUSED"}, []string{"10.0.0.4"}},
		{"example.org A", []string{"REFUSED"}, nil},
		{"shop.cart.l5 CH A", []string{"REFUSED"}, nil},
		{"shop.cart.l5 A +edns=1 +noednsnegotiation", []string{"BADVERS"}, nil},
		{"shop.cart.l5 A +opcode=NOTIFY", []string{"NOTIMP"}, nil},
		{"shop.big.l5 A", []string{"ANSWER: 16,"}, []string{" tc "}},
		{"shop.big.l5 SRV +noedns +ignore", []string{" tc "}, nil},         // 512 bytes do not hold it
		{"shop.big.l5 SRV +noedns", []string{"ANSWER: 16,", "(TCP)"}, nil}, // so dig asks over TCP
	} {
		got := dig(t, addr, strings.Fields(c.args)...)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("dig %s does not say %q:\n%s", c.args, want, got)
			}
		}
		for _, none := range c.none {
			if strings.Contains(got, none) {
				t.Errorf("dig %s says %q:\n%s", c.args, none, got)
			}
		}
	}
}

// Go's own resolver finds services, over IPv6 as well, and sees changes when the TTL is over.
func TestResolver(t *testing.T) {
	t.Parallel()
	addr, s := serve(t, func(c *dns.Config) { c.Listen = "[::1]:0" })
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	got, err := resolver.LookupHost(t.Context(), "shop.cart.l5.")
	slices.Sort(got)
	if want := []string{"10.0.0.1", "10.0.0.2", "2001:db8::1"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	_, srv, err := resolver.LookupSRV(t.Context(), "http", "tcp", "shop.cart.l5.")
	if err != nil || len(srv) != 3 {
		t.Errorf("SRV: %v, %v", srv, err)
	}
	var missing *net.DNSError
	if _, err := resolver.LookupHost(t.Context(), "nobody.l5."); !asError(err, &missing) || !missing.IsNotFound {
		t.Errorf("a service that is not there: %v", err)
	}
	if err := s.Name().Drain(t.Context(), "shop.cart", "10.0.0.1:8001"); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "the drained instance is not answered", func() bool {
		got, err := resolver.LookupHost(t.Context(), "shop.cart.l5.")
		return err == nil && !slices.Contains(got, "10.0.0.1")
	})
}

func asError(err error, target **net.DNSError) bool {
	e, ok := err.(*net.DNSError)
	*target = e
	return ok
}

// The first answer is drawn by weight: 3 of 4 times the instance of weight 300 beside one of 100.
func TestWeightedOrder(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t, nil)
	first := make(map[string]int)
	client := &wire.Client{Timeout: time.Minute}
	const n = 2000
	for range n {
		query := new(wire.Msg)
		reply, _, err := client.Exchange(query.SetQuestion("shop.cart.l5.", wire.TypeA), addr)
		if err != nil {
			t.Fatal(err)
		}
		first[reply.Answer[0].(*wire.A).A.String()]++
	}
	if share := float64(first["10.0.0.1"]) / n; share < 0.68 || share > 0.82 {
		t.Errorf("the heavier instance came first in %.2f of answers, want 0.75", share)
	}
}

// While the name service has never answered, resolvers are told to try elsewhere or later, and made-up names are bounded.
func TestUnknown(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	s.Stop()
	a, _ := l5test.Agent(t, s.Target(), nil)
	addr := run(t, a, func(c *dns.Config) { c.Wait, c.MaxNames = time.Millisecond, 2 })
	for i := range 3 {
		query := new(wire.Msg)
		reply, _, err := (&wire.Client{Timeout: time.Minute}).Exchange(query.SetQuestion(fmt.Sprintf("s%d.l5.", i), wire.TypeA), addr)
		if err != nil || reply.Rcode != wire.RcodeServerFailure {
			t.Errorf("query %d: %v, %v", i, reply, err)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := dns.New(dns.Config{Listen: "0.0.0.0:53", Zone: "..", TTL: -1, MaxNames: -1})
	for _, want := range []string{"Names", "Caller", "Listen", "Zone", "TTL", "MaxNames", "Anyone"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}

// fixed are Names that know one service.
type fixed struct{ view agent.View }

func (f fixed) Lookup(_ context.Context, _, service string) (agent.View, <-chan struct{}, error) {
	if service == f.view.Service {
		return f.view, nil, nil
	}
	return agent.View{Service: service}, nil, nil
}

func instances(n int) fixed {
	f := fixed{agent.View{Service: "shop.cart"}}
	for i := range n {
		f.view.Members = append(f.view.Members, agent.Member{Instance: l5.Instance{Addr: fmt.Sprintf("10.%d.%d.%d:80", i>>16, i>>8&255, i&255)}, Weight: 100})
	}
	return f
}

// Whatever comes in, what goes out is an answer to it that can be parsed and fits.
func FuzzReply(f *testing.F) {
	for _, name := range []string{"shop.cart.l5.", "_a._tcp.shop.cart.l5.", "0a000001.addr.l5.", "l5.", "x.", "_tcp.l5."} {
		for _, qtype := range []uint16{wire.TypeA, wire.TypeSRV, wire.TypeANY} {
			packed, err := new(wire.Msg).SetQuestion(name, qtype).Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(packed)
		}
	}
	d, err := dns.New(dns.Config{Names: instances(40), Caller: "test", Listen: "127.0.0.1:0"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		request := new(wire.Msg)
		if request.Unpack(packet) != nil {
			return
		}
		reply := d.Reply(request)
		reply.Truncate(512)
		packed, err := reply.Pack()
		if err != nil {
			t.Fatalf("%v\n%v", err, reply)
		}
		if again := new(wire.Msg); again.Unpack(packed) != nil || again.Id != request.Id || !again.Response {
			t.Errorf("not an answer: %v", again)
		}
	})
}

// Beside the cost of reading a query and writing an answer with as many records.
func BenchmarkReply(b *testing.B) {
	query, err := new(wire.Msg).SetQuestion("shop.cart.l5.", wire.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{3, 16, 10_000} {
		d, err := dns.New(dns.Config{Names: instances(n), Caller: "test", Listen: "127.0.0.1:0"})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("door/n=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				request := new(wire.Msg)
				if err := request.Unpack(query); err != nil {
					b.Fatal(err)
				}
				if _, err := d.Reply(request).Pack(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, n := range []int{3, 16} {
		b.Run(fmt.Sprintf("floor/n=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				request, reply := new(wire.Msg), new(wire.Msg)
				if err := request.Unpack(query); err != nil {
					b.Fatal(err)
				}
				reply.SetReply(request).Compress = true
				for i := range n {
					reply.Answer = append(reply.Answer, &wire.A{Hdr: wire.RR_Header{Name: "shop.cart.l5.", Rrtype: wire.TypeA, Class: wire.ClassINET, Ttl: 1}, A: net.IPv4(10, 0, 0, byte(i))})
				}
				if _, err := reply.Pack(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
