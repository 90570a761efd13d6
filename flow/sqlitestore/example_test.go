package sqlitestore_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
)

// A program with a database of its own writes its row and starts a flow in one transaction: there is never the one without the other.
func ExampleStore_Tx() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "orders")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "orders.db")+"?"+sqlitestore.Options)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store := sqlitestore.New(db)
	defer store.Close()

	tools := flow.NewTools()
	flow.Func(tools, "ship", func(_ context.Context, in struct {
		Order string `json:"order"`
	}) (struct{}, error) {
		fmt.Println("shipping", in.Order)
		return struct{}{}, nil
	}, flow.WithEffect(flow.Keyed))
	engine, err := flow.New(flow.Config{Store: store, Tools: tools})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }() // ends with ctx; waited for below
	if _, err := engine.Save(ctx, []byte("flow: ship\nparams: {order: string}\nsteps:\n  - {name: ship, tool: ship, with: {order: \"${params.order}\"}}\n")); err != nil {
		log.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE orders (id TEXT PRIMARY KEY)"); err != nil {
		log.Fatal(err)
	}

	order := func(id string, commit bool) string {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			log.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.Exec("INSERT INTO orders (id) VALUES (?)", id); err != nil {
			log.Fatal(err)
		}
		execution, err := engine.StartTx(ctx, store.Tx(tx), "ship", map[string]any{"order": id}, flow.Key(id))
		if err != nil {
			log.Fatal(err)
		}
		if commit {
			if err := tx.Commit(); err != nil {
				log.Fatal(err)
			}
		}
		return execution
	}
	order("o1", false) // rolled back: neither the order nor the flow is there
	execution := order("o2", true)
	if err := engine.Wake(ctx, execution); err != nil {
		log.Fatal(err)
	}
	x, err := engine.Wait(ctx, execution)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(x.State)
	cancel()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// shipping o2
	// done
}
