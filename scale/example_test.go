package scale_test

import (
	"context"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/scale"
	"github.com/zhiyun-ops/zhiyun/scale/memstore"
	"github.com/zhiyun-ops/zhiyun/scale/scaletest"
)

// Numbers in, a decision with its reason out; it never acts.
func ExampleDecide() {
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	var history scale.History
	for at := now.Add(-20 * time.Minute); at.Before(now); at = at.Add(10 * time.Second) {
		rate := 180.0
		if now.Sub(at) <= 30*time.Second { // load tripled half a minute ago
			rate = 540
		}
		history = append(history, scale.Sample{At: at, Rate: rate, Valid: true})
	}
	module := scale.Module{
		Name: "shop.cart", Min: 3, Max: 12,
		Capacity: map[string]float64{"s": 100},
		Serving: []scale.Device{
			{Name: "d1", Type: "s", Share: 100}, {Name: "d2", Type: "s", Share: 100}, {Name: "d3", Type: "s", Share: 100},
		},
	}
	d := scale.Decide(now, module, history)
	fmt.Println(d.Have, "->", d.Want)
	fmt.Println(d.Reason)

	// The recorder stops: nothing is decided on what is not known.
	d = scale.Decide(now.Add(10*time.Minute), module, history)
	fmt.Println(d.Have, "->", d.Want)
	fmt.Println(d.Reason)
	// Output:
	// 3 -> 7
	// load.high load=540 capacity=300 target=0.7 high=0.85
	// 3 -> 3
	// data.stale age_s=600
}

// Same city, then site, then type; types are mixed by what a device of each can do.
func ExamplePlace() {
	idle := []scale.Candidate{
		{Name: "a1", City: "sz", Site: "sz1", Type: "small"}, {Name: "a2", City: "sz", Site: "sz1", Type: "large"},
		{Name: "b1", City: "sz", Site: "sz2", Type: "small"}, {Name: "c1", City: "sh", Site: "sh1", Type: "large"},
	}
	capacity := map[string]float64{"small": 100, "large": 300}
	home := scale.Prefs{Cities: []string{"sz"}, Sites: []string{"sz1"}, Types: []string{"small", "large"}}
	for _, want := range []float64{100, 350, 500, 900} {
		p := scale.Place(want, idle, capacity, home, 0)
		fmt.Print(want, ":")
		for _, c := range p.Picked {
			fmt.Print(" ", c.Name)
		}
		fmt.Println(", short", p.Short)
	}
	// Output:
	// 100: a1, short 0
	// 350: a1 a2, short 0
	// 500: a1 a2 b1, short 0
	// 900: a1 a2 b1 c1, short 100
}

// A controller that absorbs a burst: orders are launched by the key they are stored under.
func Example() {
	world := scaletest.NewWorld() // modules, load, devices and launcher, all in memory
	world.AddModule(scale.Module{
		Name: "shop.cart", Min: 1, Max: 8, Capacity: map[string]float64{"s": 100},
		Policy: scale.Policy{ReactWithin: 50 * time.Millisecond, StaleAfter: time.Second, Target: 0.7, NoForecast: true},
	}, func(time.Time) float64 { return 400 })
	world.Bucket = 10 * time.Millisecond
	for i := range 8 {
		module := ""
		if i < 3 {
			module = "shop.cart"
		}
		world.AddDevices(module, scale.Candidate{Name: fmt.Sprint("d", i), City: "sz", Site: "sz1", Type: "s"})
	}
	ended := make(chan scale.Event, 100)
	ctl, err := scale.New(scale.Config{
		Store: memstore.New(), Modules: world, Metrics: world, Devices: world, Launcher: world, Interval: 10 * time.Millisecond,
		OnEvent: func(e scale.Event) {
			if e.Kind == scale.Ended {
				ended <- e
			}
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error)
	go func() { stopped <- ctl.Run(ctx) }()
	e := <-ended
	fmt.Println(e.Order.Direction, e.Order.Names(), e.Order.State, e.Reason.Code)
	fmt.Println(world.Serving("shop.cart"), "serve")
	cancel()
	fmt.Println(<-stopped)
	// Output:
	// out [d3 d4 d5] done load.high
	// 6 serve
	// <nil>
}

// What an order by hand would do, without doing it.
func ExampleController_Out() {
	world := scaletest.NewWorld()
	world.AddModule(scale.Module{Name: "shop.cart", Max: 4, Capacity: map[string]float64{"s": 100}}, nil)
	for i := range 6 {
		world.AddDevices("", scale.Candidate{Name: fmt.Sprint("d", i), City: "sz", Site: "sz1", Type: "s"})
	}
	ctl, err := scale.New(scale.Config{Store: memstore.New(), Modules: world, Metrics: world, Devices: world, Launcher: world})
	if err != nil {
		fmt.Println(err)
		return
	}
	plan, err := ctl.Out(context.Background(), "shop.cart", 2, "li", true)
	fmt.Println(plan.Decision.Have, "->", plan.Decision.Want, plan.Order.Names(), err)
	_, err = ctl.Out(context.Background(), "shop.cart", 5, "li", true)
	fmt.Println(err)
	// Output:
	// 0 -> 2 [d0 d1] <nil>
	// scale: order refused: 5 more than 0 devices is over the module's Max 4
}
