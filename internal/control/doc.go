// Package control is the control API: what operators, tools and agents ask of a server, over Connect.
//
//	api, err := control.New(control.Config{CMDB: db, Centers: centers, Gray: rollouts, Records: records, ...})
//	group.Go(func() error { return api.Run(ctx) })
//	api.Mount(mux)                                    // every service, and the blobs
//
//	client, err := control.Dial("unix:///var/lib/zhiyun/control.sock", "")
//	page, err := client.Resources.List(ctx, connect.NewRequest(&controlpb.ListResourcesRequest{Kind: "device"}))
//
// Who calls is settled in front of the API (package auth); what they changed goes into the audit record, with the
// actor and the reason that each changing call carries.
//
// Errors carry a Connect code and a name ("device.none", "grant.pending") that programs may act on, see NameOf; their
// text says how to mend what is wrong.
//
// Limits: one message is at most 32 MiB, one page at most 1000 documents. Archives and files travel in chunks.
package control
