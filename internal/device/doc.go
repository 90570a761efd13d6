// Package device is what happens on a device: the tools that install, configure, start and check a module,
// each with its undo, and the small API by which they reach the device's agent.
//
//	env := device.Env{Root: "/srv/zhiyun", Key: "burst-42/install/web-7", Blobs: blobs, Processes: agent}
//	out, err := device.PackageInstall(ctx, env, device.PackageInstallIn{
//		Name: "shop.cart", Version: "1.4.0", Digest: "sha256:9f86...",
//	})
//	_, err = device.PackageStart(ctx, env, device.PackageStartIn{
//		Package:   "shop.cart",
//		Processes: []device.ProcessSpec{{Name: "cart", Command: []string{"bin/cart", "-addr", "{addr}:8080"}}},
//	})
//	_, err = device.PackageStop(ctx, env, device.PackageStopIn{})     // undo, by the key of the start
//	_, err = device.PackageRemove(ctx, env, device.PackageRemoveIn{}) // undo, by the key of the install
//
// Every tool is also a process: Run reads JSON from stdin and writes JSON to stdout. Tools lists them with
// their schemas. Serve offers the agent's side on device.sock; Dial is its client.
//
// A tool that changes something keeps, before it changes anything, how things were, in a journal under
// var/zhiyun/undo/KEY/TOOL. From that follow its promises: the same key again tells the first output and
// changes nothing; a failure puts everything back; a call that was killed is put back by the next call of its
// key; the undo tool restores files, links, modes and processes exactly, may be repeated, and succeeds if
// nothing was done. Undo tools with Purge set take something away whoever put it there, for a device that
// leaves its module; device.restore undoes that.
//
// Layout below the root: pkg/NAME/VERSION-DIGEST8/, pkg/NAME/current (a link), etc/, data/, run/, and
// var/zhiyun/ for the tools themselves.
//
// Limits: nothing outside of the root is touched, whatever links say (os.Root); scripts and processes are
// programs and can do what their user can. Calls of one key exclude one another, calls of different keys that
// write the same path do not. Journals are kept for seven days.
package device
