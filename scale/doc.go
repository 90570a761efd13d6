// Package scale decides when a module grows or shrinks, and on which devices.
//
// Decide is the heart: numbers in, a decision with its reason out; it never acts.
//
//	d := scale.Decide(now, scale.Module{
//		Name: "shop.cart", Min: 3, Max: 12, Loss: 0.001,
//		Capacity: map[string]float64{"s": 100},
//		Serving:  devices,
//	}, history)
//	fmt.Println(d.Want, d.Reason)
//
// Place picks the idle devices for a growth, by city, site and type, mixing types by capacity; Leave picks those
// that go. A Controller joins the three to your modules, your load, your devices and whatever carries out an
// order, each behind an interface of one or two methods:
//
//	ctl, err := scale.New(scale.Config{Store: store, Modules: cmdb, Metrics: records, Devices: cmdb, Launcher: flows})
//	group.Go(func() error { return ctl.Run(ctx) })
//	plan, err := ctl.Out(ctx, "shop.cart", 2, "li", true) // a dry run by hand
//
// # What is promised
//
// Load that is not known, or not known freshly, is never taken for no load: the module holds. Devices on their way
// count, and are never called back because load wavers. A module does not shrink while anything is on its way or
// still in its rollout. Every order is stored before it is launched and launched under one key, however often the
// controller restarts. No idle device is given to two orders.
//
// # Life cycle
//
// New starts nothing. Run works until its context ends. Status, List, Orders, Out, In, Pause and Resume work on any
// Controller over the same Store, whether it runs or not. At most one should Run at a time; elect it, and hand in
// a store that refuses those who lost the election.
//
// # Defaults
//
// The defaults of Policy suit production: the median load of 30 s, a trend of 5 min extended by 3 min, growth at
// most every 15 s, shrinking only after 15 min of load that fits, at most 100 devices an hour. For a demo in
// which devices come within seconds, set ReactWithin to 3 s, StaleAfter to 5 s, Target to 0.7, NoForecast, OutStep to
// all devices there are, InAfter, Backoff and the two cooldowns to a few seconds, and Config.Interval to 1 s. Target
// must be set there: one that is learnt takes an hour, and a burst of that hour would count as the module's habit.
//
// # Limits
//
// Load is one number, requests per second. Bursts that end before devices can come are not worth a device and are
// not absorbed.
package scale
