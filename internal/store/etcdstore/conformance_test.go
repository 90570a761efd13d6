package etcdstore_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
	"github.com/zhiyun-ops/zhiyun/internal/store/storetest"
)

// within returns a context that ends with the test, or after d.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// conform runs the suites over one cluster; each store gets a prefix of its own.
func conform(t *testing.T, client *clientv3.Client) {
	var count atomic.Int64
	open := func() (store.Store, string) {
		prefix := fmt.Sprintf("/test-%d/", count.Add(1))
		return etcdstore.New(client, prefix), prefix
	}
	storetest.Run(t, func(*testing.T) store.Store { s, _ := open(); return s })
	storetest.RunElector(t, func(t *testing.T) storetest.Electable {
		s, prefix := open()
		elector, err := etcdstore.NewElector(etcdstore.ElectorConfig{Client: client, Prefix: prefix + "leader/"})
		if err != nil {
			t.Fatal(err)
		}
		return storetest.Electable{Store: s, Elector: elector, Depose: func(ctx context.Context, name string) error {
			_, err := client.Delete(ctx, prefix+"leader/"+name)
			return err
		}}
	})
	storetest.RunCompaction(t, func(*testing.T) storetest.Compactable {
		s, _ := open()
		return storetest.Compactable{Store: s, Compact: func(ctx context.Context, revision int64) error {
			_, err := client.Compact(ctx, revision)
			return err
		}}
	})
}

func TestEmbeddedConforms(t *testing.T) {
	t.Parallel()
	conform(t, start(t, etcdstore.EmbeddedConfig{}).Client())
}

func TestExternalClusterWithTLSConforms(t *testing.T) {
	t.Parallel()
	conform(t, external(t))
}
