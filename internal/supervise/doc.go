// Package supervise keeps the processes of a device running: it starts them, restarts them when they end,
// stops them with everything they started, and finds them again after it was itself killed.
//
//	s, err := supervise.New(supervise.Config{Dir: "/var/lib/zhiyun/supervise"})
//	group.Go(func() error { return s.Run(ctx) })
//	err = s.Start(ctx, supervise.Spec{
//		Name:    "shop.cart",
//		Command: []string{"/srv/pkg/shop.cart/current/bin/cart", "-addr", "127.0.0.1:8080"},
//		Count:   2,
//	})
//	for _, p := range s.List() { fmt.Println(p.Name, p.PID, p.State) }
//	err = s.Stop(ctx, "shop.cart", 10*time.Second)
//
// Life cycle: New opens nothing. Run takes the folder's lock, reads the state kept there, adopts the
// processes that still live, and supervises until its context ends. It then returns and leaves the processes
// running: the next Run over the same folder adopts them. Stop is what ends a process. Start and Stop wait
// for Run and return when the change is done and durable.
//
// A process is told apart from a later one with the same pid by the boot it was started in and its start
// time (field 22 of /proc/PID/stat; the kernel's process table on darwin). What is about to be started is
// written before the fork, with an identity that the process carries in its environment, so that a process
// started in the instant before the supervisor was killed is found as well (on Linux).
//
// Limits: each instance runs in a process group of its own; a process that leaves its group (setsid) leaves
// its supervision. Output goes to files that are cut at Config.LogBytes by copying and truncating: a line
// written in that very instant can be lost. No shell is involved: a command is an argument vector.
package supervise
