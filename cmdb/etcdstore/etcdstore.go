// Package etcdstore keeps a cmdb's records in etcd. It is a package of its own so that importing cmdb does not
// bring in etcd's client.
package etcdstore

import (
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

// New returns a store whose keys all begin with prefix, such as "/zhiyun/cmdb/". The client stays the caller's.
func New(client *clientv3.Client, prefix string) cmdb.Store { return etcdstore.New(client, prefix) }
