// Package flowtest tests flows in virtual time: with fake tools, or against what an execution of the past has recorded. Hours of
// retries and waits take milliseconds, and no tool runs that the test did not hand in.
//
// Run gives a test an engine over a store in memory, and fakes that fail and succeed as told:
//
//	flowtest.Run(t, func(w *flowtest.World) {
//		w.Fake(flow.Manifest{Name: "package.install", Effect: flow.Keyed}, flowtest.Fails("exit", "disk full"), flowtest.Returns(`{}`))
//		x := w.End(w.Start(document, map[string]any{"module": "shop.cart"}))
//		if x.State != flow.Done { ... }
//	})
//
// Replay takes a file that "zhiyun flow export ID" wrote, runs its flow again with the recorded results, and fails the test where
// something comes out differently: a step with another input, another way through the flow, another end. WithDocument replays a
// changed flow against what happened with the old one. A difference reads as follows, and Allow takes those that a change is meant to make:
//
//	testdata/night.json: step install item 1 error: recorded: none; replayed: exit
package flowtest
