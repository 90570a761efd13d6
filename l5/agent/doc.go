// Package agent is l5 on a device: one copy of what the device's programs call, and the leases of what they serve.
//
//	a, err := agent.New(agent.Config{
//		Upstream: "https://names.example:7070", Device: "web-17",
//		Socket: "/run/zhiyun/l5.sock", SnapshotFile: "/var/lib/zhiyun/l5.snapshot",
//	})
//	group.Go(func() error { return a.Run(ctx) })
//	err = a.Register(ctx, l5.Instance{Service: "shop.cart", Addr: "10.0.0.7:8080"})
//
// Programs give Target() as their l5.Config.Target: the agent speaks the server's protocol on a unix socket of mode
// 0600. It subscribes upstream to what its programs call, not to the fleet. When no server answers it goes on from memory,
// and after a restart from the snapshot file; callers whose grant it does not know wait.
//
// Its stream upstream is the lease of everything registered with its device as the owner. A program that
// disconnects without draining is removed after Config.LocalGrace: on one device that is certain. An agent that is
// restarted finds the registrations in its file, and the programs come back to it.
//
// Outcomes are summed up per caller and instance and sent upstream twice a second; while no server takes them the sums
// grow, bounded by the number of instances, and beyond 100,000 the programs keep them.
package agent
