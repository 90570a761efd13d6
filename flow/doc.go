// Package flow is a durable workflow engine for operations: flows are documents, steps are tools, and what was begun
// ends, through crashes and restarts, either done or undone.
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
// Who embeds it needs Tools, Config and Engine with its methods; the other names are what those take and give. Store,
// Shared and what they speak of are for who writes a store; sqlitestore, pgstore and memstore are there.
//
// # Documents
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
// A step runs a tool or another flow, once, per entry of a list or until a condition holds; sends a notice; chooses a
// way (if, switch); does several things side by side (branches); or waits, for a signal, for people, for a time or a
// window. Expressions are CEL over params and the outputs of earlier steps. Save checks all of it against the tools'
// schemas, and names line and column of what is wrong. docs/guides/flow-format.md lists all fields, JSONSchema is for
// editors, Build makes the same document of a Definition in Go. Plan tells what a flow would do with given parameters,
// Graph draws it, Diff compares two versions. An execution keeps the version with which it was started, until Migrate.
//
// # Execution
//
// An execution is a history of events, and its state is their fold. Each transition appends events and brings one row
// up to date in one durable write, in which the start of an attempt goes with the end of the one before; only then is
// anything done. So a restart knows which attempts are in doubt, begun and not known to have ended, and settles each by
// its tool's Effect: run again with the same key, asked about, or put before a person. One policy holds for errors,
// timeouts and losses (docs/guides/flow-failures.md). A step that has failed for good turns the execution back: what was
// begun is undone in reverse, durably and with retries. One that waits for a person makes it stuck, once nothing else
// runs. Wake says for what an execution waits and until when: of several sources, the engine's own work before people,
// people before a time, a time before a signal.
//
// # Operations
//
// Executions that run are found (List), looked into (Get, Watch, History, Logs, Timing), steered one by one (Cancel,
// Pause, Skip, RetryStep, Back, Approve, Migrate and others, or by name with Order) or in bulk (Bulk), sent signals
// (Signal), exported (Export) and, long after their end, removed (Prune, Config.Retention). What Rehearse begins checks
// all that the verb checks and tells what would change, which then does not; RehearseStart asks the tools as well.
// Package flowtest replays an export in a test, and tests flows with fake tools in virtual time.
//
// # Life cycle
//
// New checks the Config and starts nothing. Run takes up what is open, works until its context ends, and drains. One
// engine runs on a store at a time, unless the store is Shared, as pgstore's is: then each execution is run by the
// engine that started it, until that one ends or dies; the others go on with it within three heartbeats, and every verb
// reaches it through any of them. Tools must be the same everywhere. Tools that run on devices go through Config.Remote:
// see packages dispatch and worker. Executions that only wait leave memory until it is time.
//
// A store works in the embedder's own database, whose connections must be durable: sqlitestore.New and pgstore.New say
// what they want. StartTx starts a flow in a transaction of the embedder's; Wake has the engine go on with it. Check
// verifies a whole store.
//
// # Limits, locks and freezes
//
// Config.Limits bounds what runs at a time of a tool, on a device and for a module, how often a tool starts, and how
// many executions may be open. A flow's locks keep two executions from one module or device, a step's exclusive key two
// tasks from one place, also across engines. SetFreezes keeps everything, or a module's executions, from going on. An
// attempt that has to wait is stored as queued before its start is: it says what it waits for, and is never in doubt.
// Greater priorities go first, executions take turns, and nobody waits for ever. Package trigger starts flows on
// schedules and by webhooks.
//
// # Bounds
//
// MaxDocument and its neighbours bound what is handed in and kept; an expression is bounded by what it may cost when it
// is saved, and by 50 ms when it runs. An execution keeps 1,000 signals that no step has taken; its history is read
// whole when it is shown or taken up again. Secret parameters are struck out of everything that is shown, but stand in
// the store as they are: keep its file to its owner.
package flow
