// Package center holds the services behind the tools of the expansion flow: the package store, the central file
// source, the config center, the permission center, the notification center, the change log, the virtual addresses and
// the stop button. Each keeps its records in a store.Store; contents are blobs in a folder, by digest.
//
//	centers, err := center.New(center.Config{Store: store.Prefixed(root, "/zhiyun/center/"), Dir: "/var/lib/zhiyun/blobs"})
//	group.Go(func() error { return centers.Run(ctx) })
//	pkg, err := centers.Packages.Push(ctx, "shop-cart", "1.4.0", archive, "alice")
//	grant, err := centers.Permissions.Request(ctx, "shop.web", "shop.cart", key, "flow", "expansion")
//	file, err := centers.Configs.Render(ctx, "cart.conf", center.Scope{Module: "shop.cart", Device: "d1"}, false)
//	mux.Handle(centers.Blobs.Handler())
//
// Life cycle: New opens and starts nothing. Run follows the grants for Permissions.MayCall, keeps the balancer as
// recorded and sweeps; everything else works without it. There is nothing to close.
//
// Every act that a flow repeats takes a key: the same key again changes nothing. What is undone twice, or was never
// done, stays undone without an error. A bad input is a *FaultError: field, value and mend.
//
// Limits: records are listed from the store at each read, which suits thousands of packages, grants and parameters, not
// millions. Blobs are local to one server and are not collected when nothing cites them any more.
package center
