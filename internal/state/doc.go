// Package state keeps records in a store and reads them through a replica in memory: typed tables with indexes,
// transactions over several rows, snapshots, and watches.
//
//	devices := state.NewTable("device", func(d *Device) string { return d.Name },
//		state.Index("module", func(d *Device) []string { return []string{d.Module} }))
//	db, err := state.New(state.Config{Store: store.Prefixed(root, "/zhiyun/cmdb/"), Tables: []state.Schema{devices}})
//	group.Go(func() error { return db.Run(ctx) })
//	err = db.Ready(ctx)
//
//	for row := range devices.By(db.Snapshot(), "module", "shop.cart") { ... }   // memory, no lock
//	revision, err := db.Update(ctx, func(tx *state.Tx) error {                   // compare-and-set, tried again
//		row, ok := devices.Get(tx, "device-1")
//		...
//		devices.Put(tx, &next)
//		return nil
//	})
//
// One list-and-watch over the store feeds the replica; each commit is applied as one transaction, so that no reader
// ever sees half of it. A writer reads its own writes. What others wrote may come a moment later: Sync waits for
// all that was acknowledged before it, where that matters.
//
// Life cycle: New opens nothing, Run keeps the replica until its context ends, Ready waits for the first load.
// While the store cannot be reached, reads go on with what there is and Status says so; Update and Sync fail.
//
// Limits: an Update takes about a hundred rows (store.MaxOps); Stage takes any number and is as atomic, at three
// times the writes. All rows are in memory. What changes often and is worth little alone, such as counters and
// last-seen times, does not belong into a row: see the benchmarks and docs/adr.
package state
