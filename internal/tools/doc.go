// Package tools holds the tools that a server runs for its flows, and the two flows themselves: expansion (the 23 steps)
// and contraction. Each tool is a thin client of the control API; as a process it is `zhiyun tool NAME`, with a JSON
// object on stdin and one on stdout.
//
//	env, done, err := tools.EnvFrom(os.Getenv)          // ZHIYUN_SERVER, ZHIYUN_TOKEN_FILE, ZHIYUN_KEY, ...
//	out, err := tools.DeviceAcquire(ctx, env, tools.DeviceAcquireIn{Module: "shop.cart", Count: 2, Names: names})
//	os.Exit(tools.Run(ctx, "device.acquire", os.Stdin, os.Stdout, os.Stderr, os.Getenv))
//
//	for _, manifest := range tools.Manifests(exe) { registry.Exec(manifest) }
//	for name, source := range tools.Flows() { engine.Save(ctx, source) }
//
// Every tool that changes something is keyed: under the same ZHIYUN_KEY it does its work once, and its undo tool, under
// that key too, takes exactly that work back; undoing what was never done succeeds. A failure has a name, as
// {"error": {"code": "device.none", "message": ..., "retry": true}}, and exit code 1.
//
// Tools that run on a device are in package device.
package tools
