// Package etcdstore keeps rollouts in etcd. It is a package of its own so that importing gray does not
// bring in etcd's client.
package etcdstore

import (
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

// New returns a store whose keys all begin with prefix, such as "/zhiyun/gray/". The client stays the caller's.
func New(client *clientv3.Client, prefix string) gray.Store { return etcdstore.New(client, prefix) }
