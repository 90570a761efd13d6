// Package server is l5's name service: who serves what, with which weight, pushed to everyone who calls it.
//
//	names, err := server.New(server.Config{Store: memstore.New(), Sink: statistics})
//	group.Go(func() error { return names.Run(ctx) })
//	mux.Handle(names.Handler())
//
//	err = names.Register(ctx, []l5.Instance{{Service: "shop.cart", Addr: "10.0.0.7:8080", Share: 0}})
//	err = names.SetShare(ctx, "shop.cart", map[string]int{"10.0.0.7:8080": 10}, server.Fence(term))
//	err = names.Drain(ctx, "shop.cart", "10.0.0.7:8080")
//	err = names.Deregister(ctx, "shop.cart", "10.0.0.7:8080")
//
// # What is kept, and what is pushed
//
// The registry is rows in a Store, one per instance; the server holds a replica that follows the store's commits. A call
// that writes returns when the replica, and with it every stream's next frame, holds the change. A stream gets the state
// of a service once and then deltas, each from the revision before; one that lags or comes back gets the deltas it
// missed, or the state if there were too many. A frame is encoded once, however many streams it goes to.
//
// # Leases
//
// A Register stream names its owner, and is the lease of all instances with that Owner, whoever registered them. When
// it is lost they are suspect for Config.Grace, in which the owner may come back. After that they expire, but no more than
// Config.ExpiriesPerMinute, no more of one service than Config.ExpiryShare, and never the last one: what is beyond
// is held, and Explain says so. What somebody asks for (Drain, Deregister, SetShare) is never held back.
//
// # Limits
//
// The names of reporters, by which a batch sent twice counts once, are in memory: a batch that a server handed to the sink
// just before it crashed is counted again when it is resent to its successor.
package server
