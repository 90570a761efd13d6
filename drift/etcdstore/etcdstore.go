// Package etcdstore keeps a drift ledger's records in etcd.
package etcdstore

import (
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

// New returns a store whose keys stand under prefix, as in "/zhiyun/drift/". The client stays the caller's to close.
func New(client *clientv3.Client, prefix string) drift.Store { return etcdstore.New(client, prefix) }
