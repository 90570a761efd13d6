// Package etcdstore keeps orders and decisions in etcd. It is a package of its own so that importing scale does not
// bring in etcd's client.
package etcdstore

import (
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// New returns a store whose keys all begin with prefix, such as "/zhiyun/scale/". The client stays the caller's.
func New(client *clientv3.Client, prefix string) scale.Store { return etcdstore.New(client, prefix) }
