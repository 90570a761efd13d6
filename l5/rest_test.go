package l5_test

import (
	"testing"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// A program that calls nothing says so from time to time, through its agent: whoever reads load tells rest from silence by it.
func TestRestIsReported(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(t.Context(), []l5.Instance{{Service: "shop.cart", Addr: "127.0.0.1:80", Share: 100}}); err != nil {
		t.Fatal(err)
	}
	a, _ := l5test.Agent(t, s.Target(), nil)
	client := l5test.Client(t, a.Target(), nil)
	if _, err := client.Route(t.Context(), "shop.cart"); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "the caller says that it rests", func() bool {
		all := s.Sink.All()
		return len(all) > 0 && all[0].Requests == 0 && all[0].Addr == "127.0.0.1:80" && all[0].Reports == 0
	})
}
