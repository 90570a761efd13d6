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
// missed, or the state if there were too many. A frame is encoded once, however many streams it goes to, from rows as
// they stand in the store. A service's revision is that of the last commit that touched it, the same on every server and
// after a restart: whoever comes back is sent what it lacks, and nothing if nothing changed.
//
// # Leases
//
// A Register stream names its owner, and is the lease of all instances with that Owner, whoever registered them; Renew is
// one for a while, for those who keep no stream. When it is lost they are soon suspect, and Config.Grace runs, in which the
// owner may come back to any server. After that they expire, but no more than Config.ExpiriesPerMinute, no more of one
// service than Config.ExpiryShare, and never the last one: what is beyond is held, and Explain says so. What vanishes
// from the store although nobody removed it is held by the same share, for ten minutes. What somebody asks for (Drain,
// Deregister, SetShare) is never held back. Of two who registered one address the later one counts; the earlier one that
// comes back is refused while the later one lives.
//
// An owner may say on its stream at which of its addresses nobody serves (RegisterRequest.outages): what is registered there
// takes no calls, and Explain gives the owner's reason, until it says otherwise. An instance below its full share is left
// alone, and one that serves again and is only waited with is used if its service has no other.
//
// # Several servers
//
// Servers over one store serve the same, and any may die: give clients and agents a list of targets. Each keeps in the store
// that it lives and whose streams it holds; an owner is lost when no living server holds it. One of them, the keeper,
// marks and expires; another takes over when it is silent for five beats (a beat is a tenth of Config.Grace, at most 1 s).
// No two clocks are compared, and a server that does not see its own beats come back judges nobody. One that cannot write
// its beats sends its register streams away before the others take it for dead; routes are served on from memory.
//
// Peers that lost one server come back spread over a second (l5/internal/link.Backoff), and resume by revision.
//
// # Limits
//
// All servers over one store are of this version or later: an earlier one does not read the rows that this one writes.
// A store that was restored from a backup under servers that were all stopped has an epoch that callers know with later
// revisions: delete the record "epoch" before starting them. The records of removals, one per service that ever had one,
// stay.
//
// The names of reporters, by which a batch sent twice counts once, are in memory: a batch that a server handed to the sink
// just before it crashed is counted again when it is resent to its successor.
package server
