package cmdb_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/cmdb/memstore"
)

const exampleSite = `
kind: site
name: sz-1
city: shenzhen
---
kind: device_type
name: b6
cores: 8
---
kind: module
name: shop.cart
packages: [{name: cart, version: "1.4"}]
services: [{id: shop.cart, port: 8080}]
---
kind: device
name: d1
addr: 10.0.0.1
site: sz-1
type: b6
---
kind: device
name: d2
addr: 10.0.0.2
site: sz-1
type: b6
`

// started runs a DB that holds exampleSite until stop.
func started() (db *cmdb.DB, stop func()) {
	db, err := cmdb.New(cmdb.Config{Store: memstore.New()})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() { _ = db.Run(ctx) }()
	plan, err := db.Plan(ctx, cmdb.Documents([]byte(exampleSite)))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := db.Apply(ctx, plan, cmdb.By("ann")); err != nil {
		log.Fatal(err)
	}
	return db, stop
}

// See what a change of declarations would do, then do exactly that.
func ExampleDB_Plan() {
	db, stop := started()
	defer stop()
	ctx := context.Background()
	plan, err := db.Plan(ctx, cmdb.Documents([]byte(`
kind: module
name: shop.cart
packages: [{name: cart, version: "1.5"}]
services: [{id: shop.cart, port: 8080}]
`)))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(plan)
	if _, err := db.Apply(ctx, plan, cmdb.By("ann"), cmdb.Because("release 1.5")); err != nil {
		log.Fatal(err)
	}
	// Output:
	// plan 6a492cb4d42255f4: 0 to create, 1 to update, 0 to delete, 0 unchanged
	//
	// ~ module shop.cart
	//     ~ packages[cart].version: "1.4" -> "1.5"
	//
	// touches 1 module (shop.cart), no devices, no sites, no callers
}

// A wrong declaration is refused whole; the error names the place and the mend.
func ExampleFaults() {
	db, stop := started()
	defer stop()
	_, err := db.Plan(context.Background(), cmdb.Named{{Name: "devices.yaml", Data: []byte(`kind: device
name: d3
addr: 10.0.0.300
site: sz-1
type: b6
---
kind: device
name: d4
addr: 10.0.0.4
site: sz-1
tpye: b6
`)}})
	var faults cmdb.Faults
	if errors.As(err, &faults) {
		for _, f := range faults {
			fmt.Println(f)
		}
	}
	// Output:
	// devices.yaml:3: device d3: addr "10.0.0.300" is not an IP address; give one without a port, such as 10.1.2.3 or fd00::1
	// devices.yaml:11: device d4: tpye "b6" is an unknown field; did you mean type?
}

// Reserve devices for an execution, put one into service, give the other back.
func ExampleDB_Acquire() {
	db, stop := started()
	defer stop()
	ctx := context.Background()
	request := cmdb.AcquireRequest{Owner: "exec-7", Key: "acquire", Module: "shop.cart", Count: 2, TTL: 10 * time.Minute}
	for range 2 { // a repeated request is answered alike
		devices, err := db.Acquire(ctx, request)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(devices[0].Name, devices[1].Name, devices[0].State)
	}
	_, err := db.Acquire(ctx, cmdb.AcquireRequest{Owner: "exec-8", Key: "acquire", Count: 1})
	fmt.Println(err)
	if err := db.Serve(ctx, "exec-7", "d1", "shop.cart"); err != nil {
		log.Fatal(err)
	}
	if _, err := db.Release(ctx, "exec-7", []string{"d1", "d2"}); err != nil {
		log.Fatal(err)
	}
	for _, d := range db.Devices(cmdb.DeviceFilter{Site: "sz-1"}) {
		fmt.Println(d.Name, d.State, d.Module)
	}
	// Output:
	// d1 d2 held
	// d1 d2 held
	// cmdb: acquire 1 devices of any kind: 0 idle match, 0 idle in all; ask for fewer, widen city, site or types, or add devices
	// d1 in_service shop.cart
	// d2 idle
}

// Who changed this, when, why, and what was it before?
func ExampleDB_History() {
	db, stop := started()
	defer stop()
	ctx := context.Background()
	if err := db.MarkFaulty(ctx, "d2", "no heartbeat for 30s", cmdb.By("l5"), cmdb.During("exec-9")); err != nil {
		log.Fatal(err)
	}
	changes, err := db.History(ctx, cmdb.KindDevice, "d2")
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range changes {
		fmt.Printf("%d %s by %s: %q\n", c.Version, c.Action, c.Actor, c.Reason)
	}
	for _, f := range changes[1].Fields {
		if f.Field != "since" { // the time of day
			fmt.Println(f)
		}
	}
	// Output:
	// 1 create by ann: ""
	// 2 mark_faulty by l5: "no heartbeat for 30s"
	// + fault: "no heartbeat for 30s"
	// ~ state: "idle" -> "faulty"
}

// Find objects by an expression over any of their fields, page by page.
func ExampleDB_List() {
	db, stop := started()
	defer stop()
	page, after, err := db.List(cmdb.KindDevice, cmdb.ListOptions{Filter: `state == "idle" && addr.startsWith("10.")`, Limit: 1})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(page[0].Ref(), after)
	// Output: device/d1 d1
}

// Follow every change from a revision on.
func ExampleDB_Watch() {
	db, stop := started()
	defer stop()
	ctx := context.Background()
	after := db.Revision()
	if _, err := db.Acquire(ctx, cmdb.AcquireRequest{Owner: "exec-7", Key: "acquire", Names: []string{"d1"}}); err != nil {
		log.Fatal(err)
	}
	for event, err := range db.Watch(ctx, after) {
		if err != nil {
			log.Fatal(err)
		}
		for _, o := range event.Objects {
			fmt.Println(o.Ref, o.New.Metadata().Action)
		}
		break
	}
	// Output: device/d1 acquire
}
