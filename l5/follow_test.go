package l5_test

import (
	"testing"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// Who follows a service sees each change, and may let go of it once its calls are over and told.
func TestFollowAndForget(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	client := l5test.Client(t, s.Target(), nil)
	known, changed, err := client.Follow(t.Context(), "shop.cart")
	if err != nil || !known.Known || len(known.Instances) != 0 {
		t.Fatalf("an empty service: %+v, %v", known, err)
	}
	if err := s.Name().Register(t.Context(), []l5.Instance{{Service: "shop.cart", Addr: "10.0.0.7:80", Share: 100}}); err != nil {
		t.Fatal(err)
	}
	<-changed
	if known, _, err = client.Follow(t.Context(), "shop.cart"); err != nil || len(known.Instances) != 1 {
		t.Fatalf("after the change: %+v, %v", known, err)
	}
	route, err := client.Route(t.Context(), "shop.cart")
	if err != nil {
		t.Fatal(err)
	}
	if client.Forget("shop.cart") {
		t.Error("forgotten with a call in flight")
	}
	route.Done(l5.Outcome{})
	l5test.Await(t, "the call is told and the service forgotten", func() bool { return client.Forget("shop.cart") })
	if client.Explain("shop.cart").Known {
		t.Error("it is still known")
	}
	l5test.Await(t, "the call has arrived", func() bool { return s.Sink.Sum("shop.cart", "").Requests == 1 })
	if _, err := client.Route(t.Context(), "shop.cart"); err != nil {
		t.Errorf("a route after that: %v", err)
	}
	if _, _, err := client.Follow(t.Context(), "no such/name"); err == nil {
		t.Error("a name that is none was followed")
	}
}
