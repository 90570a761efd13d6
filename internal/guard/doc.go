// Package guard sees to it that nothing outlives a program that starts others: neither Ctrl-C nor kill -9 of
// it leaves a process behind.
//
//	// In main, before anything else: the guard is the same binary in another role.
//	if guard.Is(os.Args) {
//		os.Exit(guard.Main(os.Args))
//	}
//	g, err := guard.Start(ctx, exe, "server", "--data", dir) // runs the command under a guard
//	err = g.Wait()                                           // until the command ends
//	err = g.Stop(10 * time.Second)                           // or end it: SIGTERM, SIGKILL later
//
// Start runs the guard, and the guard runs the command. The guard holds the read end of a pipe whose write end
// is in the program alone: when the program dies, however, the kernel closes it, and the guard kills what is
// there. On Linux the guard is a subreaper: whatever descends from it comes back to it when its parent dies,
// even after setsid and a double fork, so that walking the children until there are none finds everything. The
// guard itself ignores SIGINT, SIGTERM and SIGHUP, and leaves when the last descendant is gone. When the
// program asks it to stop, or the command ends by itself, the rest is ended in the same way.
//
// A program that starts many processes needs one guard, not many: it starts itself in another role under the
// guard, and that role starts the rest.
//
// Limits: elsewhere than on Linux what leaves the command's process group is not found. kill -9 of the guard
// itself ends the command (on Linux), but not what descends from the command; the program sees that by Wait.
package guard
