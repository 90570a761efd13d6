package etcdstore

import "go.etcd.io/etcd/server/v3/etcdserver"

// MountOf finds the mount of a path in a table like the kernel's.
func MountOf(path, table string) string { return mountOf(path, table) }

// Server returns what runs inside the member.
func Server(m *Member) *etcdserver.EtcdServer { return m.server.Server }
