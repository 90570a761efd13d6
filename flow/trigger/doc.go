// Package trigger starts flows by itself: on schedules, and when a signed webhook is called.
//
//	triggers, err := trigger.New(trigger.Config{Store: store, Engine: engine})
//	group.Go(func() error { return triggers.Run(ctx) })  // every server: what the door knows
//	group.Go(func() error { return triggers.Lead(ctx) }) // one server at a time: schedules
//	mux.Handle("/hooks/", triggers.Handler())            // over TLS
//	t, err := trigger.Parse(document)
//	_, err = triggers.Apply(ctx, t)
//
// A trigger is a document:
//
//	trigger: nightly
//	flow: report
//	params: {city: shenzhen}
//	schedule: {cron: "30 2 * * *", zone: Asia/Shanghai, missed: once, overlap: skip, jitter: 5m}
//
//	trigger: load-alert
//	flow: expand
//	params: {module: "${body.labels.module}", count: "${int(body.count)}"}
//	webhook: {secret: ..., when: "body.status == 'firing'", key: "${body.id}"}
//
// # Schedules
//
// Five fields, read off the wall clock of a zone. A time that is left out when the clock is put forward runs at the first moment after it, one
// that comes twice runs the first time; schedules of every hour go by the clock as it runs. Times that passed while nobody led, or while
// the trigger was paused, are skipped, made up for once, or all (at most 100). While the execution that was started last has not ended, the next
// start is skipped, waits, or goes ahead. Each start has the key of its time, so that a crash between the start and its
// record, or two leaders for a moment, start nothing twice.
//
// # Webhooks
//
// The caller signs the time and the body with a secret that both know (HMAC-SHA256). A call outside of its window of time is refused, and within
// it the same call starts nothing more. Only what is signed, the body, is seen by expressions. Unknown triggers and bad signatures get the same answer.
//
// # Limits
//
// A document has at most 64 KiB, a body at most 1 MiB (64 KiB unless the trigger says more). Of each trigger the last 100 times and calls are kept.
package trigger
