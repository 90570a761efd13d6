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
//
// # Declarations
//
// A document is YAML or JSON: kind, name, and the fields of that kind's Go type at top level; several objects in one
// file are separated by a line of three dashes. The kinds follow the layers in which a service is described:
//
//	layer      kind                      a module's fields
//	business   business                  title, business, owner, labels
//	hardware   site, device_type,        scale
//	           device
//	os         init_profile              init_profile
//	program    module                    packages, scripts, processes, ports, tests, drift
//	config                               files, configs, params
//	external                             services, virtual_addrs, permissions, gray
//
// Plan compares, checks every relation as it would be, and shows the diff and who is touched (Blast). All faults come
// at once, each with document, line, field, value and mend. Apply does exactly what was shown: it makes the plan anew
// in its transaction, and if that would do anything else it is ErrStale. What a source does not mention stays, unless
// Prune or Remove says otherwise. What YAML writes, applied again, changes nothing.
//
// # Devices
//
// A device is idle, held, in service, faulty or retired; the picture stands above State. Only Acquire, Release, Renew,
// Serve, Hold, MarkFaulty, Repair and Retire move it, each atomically, whatever their number and on whichever server:
// no two owners ever hold one device, and none is lost. Every verb can be repeated: a flow may be killed at any line.
// Holds end by themselves at their expiry; a long flow renews.
//
// # Life cycle, limits
//
// New opens nothing. Run loads and follows the store and returns expired holds until its context ends; any number of
// DBs may run on one store. Ready waits for the first load. Reads are of memory and never block; they may be a moment
// old, and Sync waits for what others wrote. Plan and the verbs do that themselves where it matters. What reads hand
// out shares its maps and lists with the DB: never change it.
//
// All objects are in memory; the history is read from the store when asked for, Config.KeepHistory changes of each
// object. Figures at the size of the deck (40 sites, 12,740 modules with three permissions each, 161,679 devices in
// service; go test -bench DeckScale, on two loaded cores of an AMD EPYC):
//
//	load: list, decode, index          6.3 s, once per start
//	memory                             516 MiB
//	get a device                       1.1 us, 6 allocations
//	the 12 devices of a module         30 us
//	one verb, kept and indexed         130 to 150 us without the store's own time
//	blast radius of a module           70 us
//	plan of 1,000 modules, one changed 120 ms, of which reading the YAML 85 ms
package cmdb
