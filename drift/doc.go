// Package drift keeps a device as it is declared to be. It compares files, processes and listening ports with the
// declaration, says what differs, since when and what that means, and, where it is told to, has it repaired.
//
// The comparison is a pure function of two states, and can be used alone:
//
//	live, err := drift.Collect(ctx, desired, drift.Files("/srv/d1"))
//	for _, finding := range drift.Compare(desired, live) {
//		fmt.Println(finding) // config etc/app.conf: content: expected sha256:..., actual sha256:...
//	}
//
// An Agent does it all the time. It notices changes as they happen, and looks at everything now and then in case it
// did not:
//
//	agent, err := drift.New(drift.Config{
//		Device: "d1", Desired: cmdb, Reporter: ledger,
//		Collectors: []drift.Collector{drift.Files(root), drift.Processes(lister), drift.Ports(addr, lister)},
//		Mode: drift.Repair, Repairer: tools, // without these two lines it only observes
//	})
//	group.Go(func() error { return agent.Run(ctx) })
//
// A Ledger, on the server's side, keeps the findings of all devices, takes people's orders and exceptions, and brakes:
// when many devices of a module differ alike, the declaration is suspected, not the devices. Directives carries what it
// has to say back to the agents, inside their declared state. Peers compares a new device with one in service.
//
// # Life cycle
//
// New checks and starts nothing. Run blocks until its context ends, then waits for the repairs at work and sends what it
// has not reported yet. A Ledger has nothing to run or close; all it knows is in its store.
//
// # What repair may do
//
// Comparing never writes. Before each repair its intent is told (EventIntent), with what will be and what will be gone.
// Repairs are held back while a tool works on the device (Agent.Hold), by holds in the declared state, for a while after
// the declaration itself has changed (Config.Settle: the deployment is a flow's to do), and beyond Config.RepairsPerHour.
// A subject that is put right again and again, or that two repairs leave equally wrong, is escalated and left alone until
// its declaration changes, an Order comes, or it is as declared. So it cannot go round in circles with another program
// that has other ideas. A file that the agent's own repair has in hand is not reported between the repair's parts.
//
// # Limits
//
// Every report carries the Coverage of each collector: what it rests on and what it does not see. In short: files are
// watched by directory (inotify by way of fsnotify), so that who changed one is not known, and changes through another
// hard link, a shared memory map or a network are found by the rescan; a link with an absolute target counts as leaving
// the root; owner and extended attributes are not compared. The end of a process is noticed at once, its start by
// looking. Counters of repairs live in memory: an agent that is started anew counts from zero. It runs on Linux; on
// macOS processes need a lister of the embedder's own, and ports are found by connecting to those that are declared.
//
// See examples/drift for the whole of it, cmd/drift-agent for a daemon, and package drift/folder for a declaration on disk.
package drift
