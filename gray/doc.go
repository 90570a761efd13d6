// Package gray brings new members of a service to full weight in stages, each judged on what callers reported.
//
// The load balancer and the statistics are yours, behind two small interfaces, Weights and Outcomes. A rollout
// is a record in a Store: the controller that runs reads it, looks at the world, takes one step and writes what
// it did and why. Kill it at any line and the next one goes on.
//
//	ctl, err := gray.New(gray.Config{Store: store, Weights: lb, Outcomes: stats})
//	group.Go(func() error { return ctl.Run(ctx) })
//	r, err := ctl.Start(ctx, gray.Rollout{
//		Service: "shop.cart",
//		New:     []gray.Member{{ID: "10.0.0.7:8080", Cores: 8}},
//		Policy:  gray.Deck(),
//	})
//	for event, err := range ctl.Watch(ctx, r.ID) {
//		fmt.Println(event.To, event.Percent, event.Reason)
//	}
//
// # What is promised
//
// A stage starts only after the gate of the last was green at the end of its soak, or a person promoted it.
// Rollback is reachable from every state and goes on until every new member reads back 0. Without data a rollout
// holds: it neither passes nor fails. Rollouts of one service run one after the other. Every verdict and every
// transition carries its Reason with the numbers that decided.
//
// # Life cycle
//
// New starts nothing. Run works until its context ends. Start, Get, List, Watch, Abort, Promote, Pause and Resume
// work on any Controller over the same Store, whether it runs or not. At most one should Run at a time; elect it,
// and hand in the fencing number as Config.Fence and a store that refuses those who lost the election.
//
// # Limits
//
// Members are judged together, not one by one. Evidence is as old as Outcomes makes it: buckets that are still
// open do not count. A finished rollout is not watched any more.
package gray
