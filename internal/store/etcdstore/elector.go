package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// ElectorConfig configures an elector.
type ElectorConfig struct {
	// Client of the cluster that also holds the records to be fenced. Required.
	Client *clientv3.Client
	// Prefix of the leaders' keys, whole, such as "/zhiyun/leader/". Required.
	Prefix string
	// TTL of a leader that stopped answering, in whole seconds, at least 1 s; 5 s if zero. After it, the next
	// candidate leads.
	TTL time.Duration
}

// NewElector returns an elector whose terms hang on leases: a leader that dies is replaced after the TTL, one
// that resigns at once. It is safe for concurrent use.
func NewElector(config ElectorConfig) (store.Elector, error) {
	var faults []error
	if config.Client == nil {
		faults = append(faults, errors.New("etcdstore: ElectorConfig.Client is nil; give the client of the store to be fenced"))
	}
	if config.Prefix == "" {
		faults = append(faults, errors.New(`etcdstore: ElectorConfig.Prefix is empty; give one such as "/zhiyun/leader/"`))
	}
	if config.TTL == 0 {
		config.TTL = 5 * time.Second
	}
	if config.TTL < time.Second || config.TTL%time.Second != 0 {
		faults = append(faults, fmt.Errorf("etcdstore: ElectorConfig.TTL is %v; give whole seconds, at least 1s", config.TTL))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return &elector{config}, nil
}

type elector struct{ config ElectorConfig }

// Campaign implements store.Elector.
func (e *elector) Campaign(ctx context.Context, name, id string) (*store.Term, error) {
	if name == "" || id == "" {
		return nil, fmt.Errorf("%w: a campaign needs a name and an id, have %q and %q", store.ErrInvalid, name, id)
	}
	key := e.config.Prefix + name
	for {
		held, err := e.wait(ctx, key, id)
		if err != nil {
			return nil, fault(ctx, "campaign for", key, err)
		}
		term, err := e.take(ctx, key, name, id, held)
		if err != nil {
			return nil, fault(ctx, "campaign for", key, err)
		}
		if term != nil {
			return term, nil
		}
	}
}

// wait blocks until nobody but id holds key, and returns the revision of id's own hold, or 0.
func (e *elector) wait(ctx context.Context, key, id string) (int64, error) {
	for {
		answer, err := e.config.Client.Get(ctx, key)
		if err != nil {
			return 0, err
		}
		if len(answer.Kvs) == 0 {
			return 0, nil
		}
		if string(answer.Kvs[0].Value) == id {
			return answer.Kvs[0].ModRevision, nil
		}
		watching, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
		for event := range e.config.Client.Watch(watching, key, clientv3.WithRev(answer.Header.Revision+1)) {
			if err = event.Err(); err != nil || len(event.Events) > 0 {
				break
			}
		}
		cancel()
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = e.config.Client.Ctx().Err()
		}
		if err != nil {
			return 0, err
		}
	}
}

// take writes the leader's key under a new lease; a nil term means that another candidate was faster.
func (e *elector) take(ctx context.Context, key, name, id string, held int64) (*store.Term, error) {
	client := e.config.Client
	// The lease lives from here on until the term ends, not until the campaign's context does.
	session, err := e.session(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", held)).
		Then(clientv3.OpPut(key, id, clientv3.WithLease(session.Lease()))).
		Commit()
	if err != nil || !answer.Succeeded {
		_ = session.Close() // a lease that cannot be revoked lapses by itself
		return nil, err
	}
	fence := answer.Header.Revision
	term := store.NewTerm(name, id, key, fence, func(ctx context.Context) error {
		defer session.Orphan()
		_, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", fence)).
			Then(clientv3.OpDelete(key)).
			Commit()
		if err == nil {
			_, err = client.Revoke(ctx, session.Lease())
		}
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return nil // it has lapsed, or was given back before
		}
		return err
	})
	go e.guard(term, session, key, fence)
	return term, nil
}

// session grants a lease within ctx and keeps it alive until the session is closed.
func (e *elector) session(ctx context.Context) (*concurrency.Session, error) {
	lease, err := e.config.Client.Grant(ctx, int64(e.config.TTL/time.Second))
	if err != nil {
		return nil, err
	}
	return concurrency.NewSession(e.config.Client, concurrency.WithLease(lease.ID),
		concurrency.WithTTL(int(e.config.TTL/time.Second)))
}

// guard ends the term when its lease is lost, or when its key is written or removed by anybody. It ends with the
// term, or with the client.
func (e *elector) guard(term *store.Term, session *concurrency.Session, key string, fence int64) {
	ctx, cancel := context.WithCancel(e.config.Client.Ctx())
	defer cancel()
	defer session.Orphan()
	defer term.End()
	events := e.config.Client.Watch(ctx, key, clientv3.WithRev(fence+1))
	for {
		select {
		case <-term.Done():
			return
		case <-session.Done():
			return
		case event, open := <-events:
			if open && event.Err() == nil && len(event.Events) == 0 {
				continue
			}
			if !open || event.Err() == nil || event.CompactRevision == 0 {
				return
			}
			// Compacted past the term's start while the connection was away: look, then watch on.
			answer, err := e.config.Client.Get(ctx, key)
			if err != nil || len(answer.Kvs) == 0 || answer.Kvs[0].ModRevision != fence {
				return
			}
			events = e.config.Client.Watch(ctx, key, clientv3.WithRev(answer.Header.Revision+1))
		}
	}
}
