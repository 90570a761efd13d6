// Package etcdstore keeps l5's registry in etcd.
package etcdstore

import (
	"context"
	"crypto/tls"
	"log/slog"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// New returns a store whose keys stand under prefix, as in "/zhiyun/l5/". The client stays the caller's to close.
func New(client *clientv3.Client, prefix string) server.Store { return etcdstore.New(client, prefix) }

// Config says which etcd Open uses.
type Config struct {
	Endpoints []string     // of a cluster; none: a member is embedded
	TLS       *tls.Config  // to the cluster; nil: none
	Dir       string       // of the embedded member; required without Endpoints
	Logger    *slog.Logger // nil: silent
}

// Prefix is what Open's keys stand under.
const Prefix = "/zhiyun/l5/"

// Open connects to a cluster, or starts a member inside this process, and returns a store there. Close it.
func Open(ctx context.Context, config Config) (s server.Store, closeStore func() error, err error) {
	if len(config.Endpoints) > 0 {
		client, err := etcdstore.Dial(etcdstore.DialConfig{Endpoints: config.Endpoints, TLS: config.TLS})
		if err != nil {
			return nil, nil, err
		}
		return New(client, Prefix), client.Close, nil
	}
	member, err := etcdstore.Embedded(etcdstore.EmbeddedConfig{Dir: config.Dir, Logger: config.Logger})
	if err != nil {
		return nil, nil, err
	}
	if err := member.Start(ctx); err != nil {
		return nil, nil, err
	}
	return New(member.Client(), Prefix), member.Close, nil
}
