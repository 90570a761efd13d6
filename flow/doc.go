// Package flow is a durable workflow engine for operations: flows are documents, steps are tools, and what was begun ends, through crashes
// and restarts, either done or undone.
//
//	tools := flow.NewTools()
//	flow.Func(tools, "device.acquire", acquire, flow.WithEffect(flow.Keyed), flow.WithUndo("device.release"))
//	tools.Exec(flow.Manifest{Name: "package.install", Command: []string{"tools/package.install"}, Effect: flow.Keyed})
//	store, err := sqlitestore.Open("flow.db")
//	engine, err := flow.New(flow.Config{Store: store, Tools: tools})
//	group.Go(func() error { return engine.Run(ctx) })
//	_, err = engine.Save(ctx, []byte(document))
//	id, err := engine.Start(ctx, "expand", map[string]any{"module": "shop.cart"}, flow.Key("burst-42"))
//	for event, err := range engine.Watch(ctx, id) { fmt.Println(event, err) }
//
// # Documents
//
// A flow is YAML: typed parameters and steps, which run in order. The values of a step's with, and its when, each and on, may hold CEL
// expressions over params, the outputs of earlier steps (steps.NAME.FIELD), execution (id, flow, key, actor, reason) and, in a
// step with each, item and index. Save checks all of it against the tools' schemas and names line and column of what is wrong.
//
//	flow: expand
//	params:
//	  module: {type: string, required: true}
//	  count:  {type: int, default: 1, min: 1}
//	steps:
//	  - name: acquire
//	    tool: device.acquire
//	    with: {module: "${params.module}", count: "${params.count}"}
//	  - name: install
//	    tool: package.install
//	    each: "${steps.acquire.devices}"   # once per entry, four at a time, each on its device
//	    parallel: 4
//	    on: "${item.name}"
//	    with: {module: "${params.module}"}
//	    retry: {attempts: 3, backoff: 200ms, max: 5s}
//	    timeout: 30s
//
// A step is one of ten kinds: it runs a tool or another flow (pinned as NAME@3, or its latest version), sends a notice (notify), chooses a way (if with
// then and else, switch), does several things side by side (branches), or waits, for a signal, for people to approve, for a time (sleep) or a time window.
// A tool or flow may run once per entry of a list (each, in parallel, in batches, with a quota of failures) or until a condition
// holds (repeat). More fields say how it is retried, what its output is, how it is undone, what becomes of its failure. A step sees
// the outputs of steps that surely came before it, and with has(steps.NAME) asks for those whose way may not have been chosen. The file docs/guides/flow-format.md
// lists all fields; JSONSchema is for editors.
//
// Build makes the same document of a Definition in Go. Engine.Plan tells what a flow would do with given parameters, Graph draws it, and Diff compares two
// versions. An execution keeps the version with which it was started.
//
// # Execution
//
// An execution is a history of events, and its state is their fold. Each transition appends events and brings one row up to date in one
// durable write, in which the start of an attempt goes with the end of the one before; only then is anything done. So a restart knows
// which attempts are in doubt, begun and not known to have ended, and settles each by its tool's declared Effect: run again
// with the same key, asked about, or put before a person. A step that has failed for good turns the execution back: what was begun is undone in
// reverse, durably and with retries. A step or an undo that waits for a person makes the execution stuck, once nothing else of it runs: Retry or Settle it.
//
// One policy holds for errors, timeouts and losses: what is not known is settled by the effect, then a try that is left is made, then on_failure decides. The
// table is in docs/guides/flow-failures.md.
//
// Blocks (if, switch, branches, a handler) make a flow a tree; a step runs at most once. Steps that wait (sleep, window, signal, approve) cost
// nothing meanwhile, and the execution's Wake says for what it waits and until when: one source is stored, the engine's own work before people,
// people before a time, a time before a signal. Signals are kept until a step takes them, once per ID.
//
// # Operations
//
// Executions that run are found (List with a Filter), steered one by one (Cancel, Pause, Skip, RetryStep, Back, Approve, Migrate and others: each takes the
// execution's ID and an Intervention; Order gives the same orders by name) or in bulk (Bulk), sent signals (Signal), looked into (Logs, Timing, History) and exported (Export).
// Plan works out what a flow would do and asks nobody. To rehearse a verb is to check all that it checks and tell what it would change, which then does not change:
// RehearseStart, which asks the tools as well, RehearseOrder, RehearseSignal, RehearseSave, and Rehearse of a Bulk or a Prune. Package flowtest replays an export in a
// test, and tests flows with fake tools in virtual time. Config.Retention removes what ended long ago.
//
// # Life cycle
//
// New checks the Config and starts nothing. Run takes up what is open, works until its context ends, and drains. One engine runs on a
// store at a time, unless the store is Shared. Tools that run on devices go through Config.Remote: see packages dispatch and worker.
//
// # Several engines
//
// Engines on one Shared store (pgstore) share its executions: each is run by the engine that started it, until that one dies, is stopped or
// ends; then the others go on with it within three heartbeats. Every verb, Wait and Watch reach it through any of them. Tools and what they need must be the same everywhere, as
// must the devices that Remote reaches.
//
//	store, err := pgstore.Open(ctx, "postgres://zhiyun@db/flows")
//	engine, err := flow.New(flow.Config{Store: store, Tools: tools, Name: "server-1"})
//
// # Embedding
//
// A store works in the embedder's own database, whose connections must be durable: sqlitestore.New and pgstore.New say what they want, and refuse what is less.
// StartTx starts a flow in a transaction of the embedder's, together with whatever else that writes; Wake has the engine go on with it. Executions that wait for a
// time, a signal or a person leave memory and are loaded when it is time, or when somebody asks; on a Shared store, by the engine that owns them. Check verifies a whole store.
//
// # Limits, locks and freezes
//
// Config.Limits bounds what runs at a time of a tool, on a device and for a module, how often a tool starts, and how many executions may be open. A flow's
// locks keep two executions from one module or device, a step's exclusive key two tasks from one place; they stand in the store, and several engines on it
// keep to them. SetFreezes keeps everything, or a module's executions, from going on. An attempt that has to wait is queued, which is stored before its start is: it says what it
// waits for, and is never in doubt. Greater priorities go first, executions take turns, and nobody waits for ever. See Limits, Lock and Freeze; package
// trigger starts flows on schedules and by webhooks.
//
// # Bounds
//
// A document has at most 1 MiB and 20,000 steps, an output 1 MiB; of stderr the last 8 KiB are kept. An expression is bounded by what it may cost when it is
// saved, and by 50 ms when it runs. An execution keeps 1,000 signals that no step has taken, each of 256 KiB at most. The history of an
// execution is read whole when it is shown or taken up again.
// Secret parameters, its sub-flows' as well, are struck out of everything that is shown, but they stand in the store as they are: keep its file
// to its owner.
package flow
