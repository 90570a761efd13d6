package etcdstore_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

// A server on one machine: a member of its own, a view for one package, and a leader whose writes are fenced.
func Example() {
	dir, err := os.MkdirTemp("", "zhiyun-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	etcd, err := etcdstore.Embedded(etcdstore.EmbeddedConfig{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if err := etcd.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer etcd.Close()
	elector, err := etcdstore.NewElector(etcdstore.ElectorConfig{Client: etcd.Client(), Prefix: "/zhiyun/leader/"})
	if err != nil {
		log.Fatal(err)
	}
	term, err := elector.Campaign(ctx, "gray", "server-1")
	if err != nil {
		log.Fatal(err)
	}
	records := store.Fenced(etcdstore.New(etcd.Client(), "/zhiyun/gray/"), term)
	if _, err := records.Commit(ctx, store.Put("rollout/1", []byte("10%")).IfAbsent()); err != nil {
		log.Fatal(err)
	}
	if err := term.Resign(ctx); err != nil {
		log.Fatal(err)
	}
	_, err = records.Commit(ctx, store.Put("rollout/1", []byte("50%")))
	fmt.Println(err)
	// Output:
	// store: the writer's leadership has ended; another leader writes now: server-1 led gray from revision 2
}
