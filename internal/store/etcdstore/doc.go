// Package etcdstore keeps records in etcd: in a member of the process's own, or in a cluster.
//
// A server on one machine embeds etcd in its data folder. The member listens on nothing: no socket, no port,
// so that no other user of the machine can reach it; the client speaks to it by function calls.
//
//	etcd, err := etcdstore.Embedded(etcdstore.EmbeddedConfig{Dir: "/var/lib/zhiyun/etcd", Logger: log})
//	if err := etcd.Start(ctx); err != nil { ... }        // ready for reads and writes
//	group.Go(func() error { return etcd.Run(ctx) })      // serves until ctx ends, or the disk fails
//	records := etcdstore.New(etcd.Client(), "/zhiyun/")
//	elector, err := etcdstore.NewElector(etcdstore.ElectorConfig{Client: etcd.Client(), Prefix: "/zhiyun/leader/"})
//
// Several servers share a cluster, by the same code from the third line on:
//
//	client, err := etcdstore.Dial(etcdstore.DialConfig{Endpoints: endpoints, TLS: tls})
//
// Life cycle: Start once, Run until the context ends, Close whenever (it is idempotent, and legal before
// Start). A member whose disk fails or is full stops serving at the line where it failed: nothing more is
// acknowledged, Run returns an error that names the disk, and the process is expected to end. Started again
// with space freed, the folder holds every acknowledged write.
//
// Limits: one commit takes store.MaxOps operations and store.MaxBytes in any cluster; the embedded member takes
// more (EmbeddedConfig). The space quota stops writes with store.ErrNoSpace while reads go on.
package etcdstore
