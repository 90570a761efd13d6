package server_test

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

func renew(t *testing.T, c l5pbconnect.NameServiceClient, request *l5pb.RenewRequest) *l5pb.RenewResponse {
	t.Helper()
	r, err := c.Renew(within(t), connect.NewRequest(request))
	if err != nil {
		t.Fatal(err)
	}
	return r.Msg
}

// A third party holds leases by renewing them; when it stops, they expire as after a lost stream.
func TestRenewedLease(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, func(c *server.Config) { c.Grace = 200 * time.Millisecond })
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:9"}}); err != nil { // so that it is not the last
		t.Fatal(err)
	}
	c := wire(t, s.Target())
	r := renew(t, c, &l5pb.RenewRequest{Owner: "operator", TtlMs: 5000, Put: []*l5pb.Instance{{Service: "a", Addr: "127.0.0.1:1"}}})
	if r.GetFault() != "" || r.GetRevision() == 0 || r.GetInstances() != 1 {
		t.Fatalf("registered: %v", r)
	}
	for range 3 {
		if r := renew(t, c, &l5pb.RenewRequest{Owner: "operator", TtlMs: 5000}); r.GetInstances() != 1 {
			t.Errorf("renewed: %v", r)
		}
	}
	if got := s.Name().Instances("a"); len(got) != 2 || !got[0].Live {
		t.Errorf("while it renews: %+v", got)
	}
	l5test.Await(t, "it expires", func() bool { return len(s.Name().Instances("a")) == 1 })
	for _, bad := range []*l5pb.RenewRequest{{}, {Owner: "o", TtlMs: 1}, {Owner: "o", TtlMs: 1 << 40}} {
		if _, err := c.Renew(within(t), connect.NewRequest(bad)); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// Of two who registered one address the later one counts, also when the earlier one comes back.
func TestStaleRegistrationIsRefused(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	c := wire(t, s.Target())
	put := func(owner string, acknowledged int64) *l5pb.RenewResponse {
		return renew(t, c, &l5pb.RenewRequest{Owner: owner, Put: []*l5pb.Instance{{Service: "a", Addr: "127.0.0.1:1", Acknowledged: acknowledged}}})
	}
	first := put("first", 0)
	second := put("second", 0)
	if got := s.Name().Instances("a"); got[0].Owner != "second" {
		t.Fatalf("the later registration does not count: %+v", got)
	}
	if r := put("first", first.GetRevision()); !strings.Contains(r.GetFault(), "another owner") || r.GetInstances() != 0 {
		t.Errorf("the earlier one that comes back: %v", r)
	}
	if r := put("second", second.GetRevision()); r.GetFault() != "" {
		t.Errorf("the later one that comes back: %v", r)
	}
	if r := put("first", 0); r.GetFault() != "" {
		t.Errorf("a new registration: %v", r)
	}
}
