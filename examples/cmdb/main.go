// Command cmdb declares a small service, changes it, and takes devices through their life.
package main

import (
	"context"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/cmdb/memstore"
)

//go:embed site
var site embed.FS

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) error {
	db, err := cmdb.New(cmdb.Config{Store: memstore.New()})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return db.Run(ctx) })
	group.Go(func() error {
		defer stop()
		return story(ctx, out, db)
	})
	return group.Wait()
}

func story(ctx context.Context, out io.Writer, db *cmdb.DB) error {
	fmt.Fprintln(out, "# declare a service: cmdb.Dir(\"site/\") does the same from a folder")
	declared, err := documents()
	if err != nil {
		return err
	}
	plan, err := db.Plan(ctx, declared)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d objects to create\n", len(plan.Changes))
	if _, err := db.Apply(ctx, plan, cmdb.By("ann"), cmdb.Because("open the shop")); err != nil {
		return err
	}

	fmt.Fprintln(out, "\n# an execution takes a device in Shenzhen and puts it into service")
	devices, err := db.Acquire(ctx, cmdb.AcquireRequest{
		Owner: "exec-1", Key: "acquire", Module: "shop.cart", Count: 1, City: "shenzhen", TTL: 10 * time.Minute,
	})
	if err != nil {
		return err
	}
	if err := db.Serve(ctx, "exec-1", devices[0].Name, "shop.cart", cmdb.By("flow"), cmdb.Because("expand shop.cart")); err != nil {
		return err
	}
	for _, d := range db.Devices(cmdb.DeviceFilter{}) {
		fmt.Fprintf(out, "%s %s for %q\n", d.Name, d.State, d.Module)
	}

	fmt.Fprintln(out, "\n# a new version: look before it is applied")
	cart, err := db.Module("shop.cart")
	if err != nil {
		return err
	}
	cart.Packages = []cmdb.PackageSpec{{Name: "cart", Version: "1.5"}}
	text, err := cmdb.YAML(&cart)
	if err != nil {
		return err
	}
	if plan, err = db.Plan(ctx, cmdb.Documents(text)); err != nil {
		return err
	}
	fmt.Fprint(out, plan)
	if _, err := db.Apply(ctx, plan, cmdb.By("ann"), cmdb.Because("release 1.5")); err != nil {
		return err
	}

	fmt.Fprintln(out, "\n# what would break a relation is refused")
	if _, err := db.Delete(ctx, cmdb.KindSite, "sh-1"); err != nil {
		fmt.Fprintln(out, err)
	}

	fmt.Fprintln(out, "\n# who did what to d1")
	history, err := db.History(ctx, cmdb.KindDevice, "d1")
	if err != nil {
		return err
	}
	for _, c := range history {
		fmt.Fprintf(out, "%d %s by %s, because: %q\n", c.Version, c.Action, c.Actor, c.Reason)
	}
	return nil
}

// documents are the YAML files of the folder site, which is built into the program.
func documents() (cmdb.Source, error) {
	var docs cmdb.Named
	names, err := fs.Glob(site, "site/*.yaml")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		data, err := site.ReadFile(name)
		if err != nil {
			return nil, err
		}
		docs = append(docs, cmdb.Document{Name: name, Data: data})
	}
	return docs, nil
}
