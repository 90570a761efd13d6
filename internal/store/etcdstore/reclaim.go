package etcdstore

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Reclaim frees what old revisions take and lets a cluster write again that stopped for want of space: it compacts
// to the present revision, defragments every member, and disarms the alarm. Watchers that are behind must resync.
// While a member is defragmented it answers nothing, so that this is for when space is short. If the records
// themselves fill the quota, writes stop again: delete some first, or raise the quota.
func Reclaim(ctx context.Context, client *clientv3.Client) error {
	return reclaim(ctx, client, func() error {
		for _, endpoint := range client.Endpoints() {
			if _, err := client.Defragment(ctx, endpoint); err != nil {
				return fmt.Errorf("%s: %w", endpoint, err)
			}
		}
		return nil
	})
}

// Reclaim does for the member inside the process what the function of the same name does for a cluster.
func (m *Member) Reclaim(ctx context.Context) error {
	m.mu.Lock()
	server, client := m.server, m.client
	m.mu.Unlock()
	if client == nil {
		return fmt.Errorf("etcdstore: reclaim %s: the member is not started", m.config.Dir)
	}
	return reclaim(ctx, client, server.Server.Backend().Defrag)
}

func reclaim(ctx context.Context, client *clientv3.Client, defragment func() error) error {
	answer, err := client.Get(ctx, "\x00", clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("etcdstore: reclaim: read the revision: %w", err)
	}
	if _, err := client.Compact(ctx, answer.Header.Revision, clientv3.WithCompactPhysical()); err != nil && !errors.Is(fault(ctx, "compact", "", err), store.ErrCompacted) {
		return fmt.Errorf("etcdstore: reclaim: compact to revision %d: %w", answer.Header.Revision, err)
	}
	if err := defragment(); err != nil {
		return fmt.Errorf("etcdstore: reclaim: defragment: %w", err)
	}
	if _, err := client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		return fmt.Errorf("etcdstore: reclaim: disarm the alarm: %w", err)
	}
	return nil
}
