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
// and after a restart from its files; callers whose grant it does not know wait.
//
// # The route table
//
// What is pushed stands a moment later in Config.Table, as files that all programs of the device map: 55 bytes an instance,
// once per device, whatever the number of programs. A program that starts while agent and server are both away routes by it.
// Each user id of the device has a folder of its own with what its programs may call, and nobody else reads it; to serve more
// users than its own, the agent needs the right to give files away (CAP_CHOWN). A change rewrites one file of 128. The table
// is also what the agent starts from and serves from: the folder of its own user holds all that any program calls, mapped,
// and the agent keeps in memory what that does not have yet. SnapshotFile keeps the grants and registrations alone.
//
// # Shared health
//
// A program tells the agent at once of a call that got no answer, and of an instance that it has ejected. The agent probes the
// instance: by TCP, or by HTTP or gRPC health as ProbeLabel says. If the probe fails, no program of the device is to call it
// until probes succeed again, the first after Config.Balance.EjectFor and then twice as late each time: no user's call
// is spent on that. A program that is wrong harms only itself. That an instance answers probes and yet serves nobody
// is believed of three processes that each ejected it, or had two time-outs in a row, within 10 s; that it answers nobody, of
// three with a time-out while the probe has no answer either; and that it hangs, of three that wait for far longer than calls
// take, each until it has an answer, while no more than a quarter of the service is waited for; of three of one user and module
// only while nobody else on the device calls the service. At most Config.Balance.MaxEjected of a service is down. Without
// the agent, each program goes on by what it sees itself. Doors see the same by Lookup.
//
// # When push is cut
//
// The server is to be heard each second. If it is silent for 1.5 s, or says that it sent more messages than came, the agent
// opens another stream on a connection of its own and resumes by revision; so do programs with the agent. Each stream in a row
// that went silent is waited for twice as long, up to 12 s: a server that is slow is not run over.
//
// A server that comes back without its records takes nobody down: a state of another history that lacks more than 30 % of a
// service is held back for a minute, or until the instances are there again, and the log says so.
//
// # Registrations and outcomes
//
// Its stream upstream is the lease of everything registered with its device as the owner. A program that
// disconnects without draining is removed after Config.LocalGrace: on one device that is certain. An agent that is
// restarted finds the registrations in its file, and the programs come back to it.
//
// Whoever embeds the agent and knows at which addresses of the device nobody serves, because a process has ended, tells by Say:
// callers everywhere hear of it at once.
//
// Outcomes are summed up per caller and instance and sent upstream twice a second; while no server takes them the sums
// grow, bounded by the number of instances, and beyond 100,000 the programs keep them.
package agent
