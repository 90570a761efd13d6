// Package cmdb keeps what should be: the sites, device types, devices and modules of a service, each module with
// the whole manifest of what it depends on, the state of each device's life, and the history of every change.
//
//	db, err := cmdb.New(cmdb.Config{Store: memstore.New()})
//	group.Go(func() error { return db.Run(ctx) })
//	plan, err := db.Plan(ctx, cmdb.Dir("site/"))   // declarations in YAML; changes nothing
//	fmt.Println(plan)                              // diff and blast radius
//	rev, err := db.Apply(ctx, plan, cmdb.By("ann"), cmdb.Because("new shop"))
//	devices, err := db.Acquire(ctx, cmdb.AcquireRequest{Owner: "exec-7", Key: "acquire", Module: "shop.cart", Count: 2})
//	err = db.Serve(ctx, "exec-7", devices[0].Name, "shop.cart")
//	for _, d := range db.Devices(cmdb.DeviceFilter{Module: "shop.cart", State: cmdb.InService}) { ... }
//	changes, err := db.History(ctx, cmdb.KindDevice, "d1")
package cmdb
