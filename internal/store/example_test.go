package store_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Compare and set: a commit under a condition, and what its refusal says.
func Example() {
	ctx := context.Background()
	devices := store.Prefixed(store.NewMemory(), "/zhiyun/pool/")
	first, err := devices.Commit(ctx, store.Put("device-1", []byte("idle")).IfAbsent())
	if err != nil {
		log.Fatal(err)
	}
	if _, err := devices.Commit(ctx, store.Put("device-1", []byte("held by flow-7")).At(first)); err != nil {
		log.Fatal(err)
	}
	_, err = devices.Commit(ctx, store.Put("device-1", []byte("held by flow-8")).At(first))
	fmt.Println(errors.Is(err, store.ErrConflict), err)
	for event, err := range devices.Watch(ctx, "device", first) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d: %s is %s\n", event.Revision, event.Puts[0].Key, event.Puts[0].Value)
		break
	}
	// Output:
	// true store: commit on "device-1": want revision 1, have 2; read it again and retry
	// 2: device-1 is held by flow-7
}
