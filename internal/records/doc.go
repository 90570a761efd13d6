// Package records keeps the append-only records of operations in one SQLite file: who did what (audit), change
// records, findings, and the outcomes that callers report, folded into buckets by the server's clock.
//
//	db, err := records.Open("/var/lib/zhiyun/records.db", records.Config{})
//	defer db.Close()
//	group.Go(func() error { return db.Run(ctx) })          // commits, beats, retention; writes wait for it
//	err = db.Audit(ctx, records.Entry{Actor: "scale", Action: "launch", Object: "module/shop.cart"})
//	err = db.AddOutcomes(ctx, deltas)                      // durable when it returns
//	window, err := db.Outcomes(ctx, "shop.cart", from, to) // per instance and bucket
//	samples, err := db.Load(ctx, "shop.cart", from, to)    // every bucket, gaps told apart from zero
//
// Every write is durable when its call returns (WAL, synchronous=FULL); one committer puts all writes that wait into
// one transaction, so that many writers share one fsync. A write whose context ends while it waits may still happen.
//
// Life cycle: Open reads and writes the schema; Run must run for writes to go on and ends with its context, after
// the writes that it had accepted; Close ends the file. Reads work from Open to Close.
//
// Limits: one process writes a file. Outcomes arrive in the bucket of their arrival; a bucket during which no process
// ran for even a part of it is a gap, and whoever decides on numbers must hold there and not read zero.
package records
