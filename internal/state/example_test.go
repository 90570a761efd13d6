package state_test

import (
	"context"
	"fmt"
	"log"

	"github.com/zhiyun-ops/zhiyun/internal/state"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

type host struct {
	Name   string `json:"name"`
	Module string `json:"module"`
	Held   bool   `json:"held"`
}

// Two flows take devices of one module; the rows decide, and none is taken twice.
func Example() {
	hosts := state.NewTable("host", func(h *host) string { return h.Name },
		state.Index("module", func(h *host) []string { return []string{h.Module} }))
	db, err := state.New(state.Config{Store: store.NewMemory(), Tables: []state.Schema{hosts}})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- db.Run(ctx) }()

	put := func(h host) error {
		_, err := db.Update(ctx, func(tx *state.Tx) error { hosts.Put(tx, &h); return nil })
		return err
	}
	for _, name := range []string{"host-1", "host-2"} {
		if err := put(host{Name: name, Module: "shop.cart"}); err != nil {
			log.Fatal(err)
		}
	}
	take := func() (taken string, err error) {
		_, err = db.Update(ctx, func(tx *state.Tx) error {
			taken = ""
			for row := range hosts.By(tx, "module", "shop.cart") {
				if !row.Value.Held {
					next := *row.Value // rows are shared: change a copy
					next.Held, taken = true, row.Key
					hosts.Put(tx, &next)
					return nil
				}
			}
			return nil
		})
		return taken, err
	}
	for range 3 {
		taken, err := take()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("took %q\n", taken)
	}
	stop()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// took "host-1"
	// took "host-2"
	// took ""
}

// A watcher starts from a snapshot, and misses nothing after it.
func ExampleDB_Watch() {
	hosts := state.NewTable("host", func(h *host) string { return h.Name })
	db, err := state.New(state.Config{Store: store.NewMemory(), Tables: []state.Schema{hosts}})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- db.Run(ctx) }()
	if err := db.Ready(ctx); err != nil {
		log.Fatal(err)
	}
	snap := db.Snapshot()
	if _, err := db.Update(ctx, func(tx *state.Tx) error {
		hosts.Put(tx, &host{Name: "host-1"})
		hosts.Put(tx, &host{Name: "host-2"})
		return nil
	}); err != nil {
		log.Fatal(err)
	}
	for change, err := range db.Watch(ctx, snap.Revision()) {
		if err != nil {
			log.Fatal(err) // after state.ErrResync: take a snapshot and start again
		}
		for edit := range hosts.Edits(change) {
			fmt.Println(edit.Key, "is new:", edit.Old == nil)
		}
		break
	}
	stop()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// host-1 is new: true
	// host-2 is new: true
}
