package gray_test

import (
	"context"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/gray/graytest"
	"github.com/zhiyun-ops/zhiyun/gray/memstore"
)

// quick is the deck's rule with times that suit an example.
func quick() gray.Policy {
	p := gray.Deck()
	p.Soak = 10 * time.Millisecond
	return p
}

// world is a load balancer with one old member and a new one, and callers who send it 100,000 requests a second.
func world() (*graytest.Balancer, *graytest.Traffic) {
	lb := new(graytest.Balancer)
	lb.Add("shop.cart", 100, "10.0.0.1:80")
	lb.Add("shop.cart", 0, "10.0.0.7:80")
	return lb, graytest.NewTraffic(lb, 100_000)
}

// New devices that are as good as the old ones come to full weight in three stages.
func Example() {
	lb, callers := world()
	ctl, err := gray.New(gray.Config{Store: memstore.New(), Weights: lb, Outcomes: callers, Interval: time.Millisecond})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- ctl.Run(ctx) }()

	r, err := ctl.Start(ctx, gray.Rollout{
		Service: "shop.cart",
		New:     []gray.Member{{ID: "10.0.0.7:80", Cores: 8}},
		Policy:  quick(),
	})
	if err != nil {
		fmt.Println(err)
	}
	for event, err := range ctl.Watch(ctx, r.ID) {
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Println(event.To, event.Percent, event.Reason.Code)
	}
	fmt.Println("share in force:", lb.Share("shop.cart", "10.0.0.7:80"))
	cancel()
	fmt.Println(<-ended)
	// Output:
	// queued 0 created
	// running 10 started
	// running 10 stage.in_force
	// running 50 stage.green
	// running 50 stage.in_force
	// running 100 stage.green
	// running 100 stage.in_force
	// done 100 stage.green
	// share in force: 100
	// <nil>
}

// New devices that fail a third of their calls are taken back, with the numbers that decided.
func Example_rollback() {
	lb, callers := world()
	callers.Fail("10.0.0.7:80", 1.0/3)
	ctl, err := gray.New(gray.Config{Store: memstore.New(), Weights: lb, Outcomes: callers, Interval: time.Millisecond})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- ctl.Run(ctx) }()

	r, err := ctl.Start(ctx, gray.Rollout{Service: "shop.cart", New: []gray.Member{{ID: "10.0.0.7:80"}}, Policy: quick()})
	if err != nil {
		fmt.Println(err)
	}
	for event, err := range ctl.Watch(ctx, r.ID) {
		if err == nil && event.To == gray.Aborting {
			rate, _ := event.Reason.Number("new")
			fmt.Printf("%s: success rate %.2f\n", event.Reason.Code, rate)
		}
	}
	r, err = ctl.Get(ctx, r.ID)
	fmt.Println(r.Status.State, lb.Share("shop.cart", "10.0.0.7:80"), err)
	cancel()
	fmt.Println(<-ended)
	// Output:
	// success.low: success rate 0.67
	// aborted 0 <nil>
	// <nil>
}

// A person stops a rollout; the weights are set to 0 until they read back so.
func ExampleController_Abort() {
	lb, callers := world()
	callers.Silence(true) // nobody calls: the rollout holds
	ctl, err := gray.New(gray.Config{Store: memstore.New(), Weights: lb, Outcomes: callers, Interval: time.Millisecond})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- ctl.Run(ctx) }()

	r, _ := ctl.Start(ctx, gray.Rollout{Service: "shop.cart", New: []gray.Member{{ID: "10.0.0.7:80"}}, Policy: quick()})
	for event := range ctl.Watch(ctx, r.ID) {
		if event.Reason.Code == gray.CodeInForce {
			_, err := ctl.Abort(ctx, r.ID, "li", "wrong build")
			fmt.Println("abort:", err)
		}
		if event.To.Final() {
			fmt.Println(event.To)
		}
	}
	r, _ = ctl.Get(ctx, r.ID)
	fmt.Println(r.Status.Cause)
	cancel()
	fmt.Println(<-ended)
	// Output:
	// abort: <nil>
	// aborted
	// aborted by li: wrong build
	// <nil>
}

// The judge alone, for those who have a control loop of their own.
func ExamplePolicy_Judge() {
	p := gray.Deck()
	members := []gray.Member{{ID: "new", Cores: 16}}
	need := p.Need(members, 8) // 16 cores where the smallest device has 8
	old := []gray.MemberOutcome{{ID: "old", Requests: 5000, Failures: 10}}

	for _, failures := range []int64{2, 40} {
		w := gray.Window{Complete: true, HasOld: true, Old: old}
		w.New = []gray.MemberOutcome{{ID: "new", Requests: 500, Failures: failures, Reports: 9}}
		fmt.Println(p.Judge(need, w))
	}
	fmt.Println(p.Judge(need, gray.Window{Complete: false}))
	// Output:
	// pass success.ok new=0.996 old=0.998 margin=0.05 requests=500 failures=2 need=400
	// fail success.low new=0.92 old=0.998 margin=0.05 requests=500 failures=40 need=400
	// hold data.gap
}
