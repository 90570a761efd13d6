package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// quorumPatience bounds the check that a watch may need of the quorum: without an answer the watch ends, and is
// made again by its caller.
const quorumPatience = 2 * time.Second

// pageSize bounds one answer of List, so that a table of any size passes through gRPC in pieces.
const pageSize = 10_000

// New returns a store whose keys all carry prefix in etcd. It opens nothing: the client is the caller's.
func New(client *clientv3.Client, prefix string) store.Store {
	return &etcd{client, prefix}
}

type etcd struct {
	client *clientv3.Client
	prefix string
}

// List implements store.Store. A large listing is read in pages of one revision.
func (e *etcd) List(ctx context.Context, prefix string) ([]store.Record, int64, error) {
	full := e.prefix + prefix
	for {
		records, revision, err := e.list(ctx, full)
		if errors.Is(err, rpctypes.ErrCompacted) {
			continue // the pinned revision was compacted between two pages: read a newer one
		}
		if err != nil {
			return nil, 0, fault(ctx, "list", full, err)
		}
		return records, revision, nil
	}
}

func (e *etcd) list(ctx context.Context, full string) ([]store.Record, int64, error) {
	var records []store.Record
	revision := int64(0)
	from, end := full, clientv3.GetPrefixRangeEnd(full)
	if full == "" {
		from = "\x00"
	}
	for {
		answer, err := e.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize),
			clientv3.WithRev(revision), clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend))
		if err != nil {
			return nil, 0, err
		}
		if revision == 0 {
			revision = answer.Header.Revision
			if answer.More {
				records = make([]store.Record, 0, answer.Count)
			}
		}
		for _, kv := range answer.Kvs {
			records = append(records, store.Record{
				Key: strings.TrimPrefix(string(kv.Key), e.prefix), Value: kv.Value, Revision: kv.ModRevision,
			})
		}
		if !answer.More {
			return records, revision, nil
		}
		from = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

// Watch implements store.Store. The client resumes a broken connection by itself; what comes out as an error is
// a lost cluster, or compaction.
func (e *etcd) Watch(ctx context.Context, prefix string, after int64) iter.Seq2[store.Event, error] {
	full := e.prefix + prefix
	return func(yield func(store.Event, error) bool) {
		watching, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
		defer cancel() // frees the stream on the member
		answers := e.client.Watch(watching, full, clientv3.WithPrefix(), clientv3.WithRev(after+1),
			clientv3.WithCreatedNotify(), clientv3.WithProgressNotify())
		for answer := range answers {
			if answer.CompactRevision != 0 {
				yield(store.Event{}, store.ErrCompacted)
				return
			}
			if err := answer.Err(); err != nil {
				yield(store.Event{}, fault(ctx, "watch", full, err))
				return
			}
			if answer.Created && answer.Header.Revision < after {
				if err := e.reached(ctx, after); err != nil {
					yield(store.Event{}, err)
					return
				}
			}
			for _, event := range e.commits(answer.Events) {
				if !yield(event, nil) {
					return
				}
			}
		}
		if ctx.Err() != nil {
			yield(store.Event{}, context.Cause(ctx))
			return
		}
		yield(store.Event{}, fmt.Errorf("etcdstore: watch %q: the client was closed; watch again from the last revision seen", full))
	}
}

// reached fails with ErrCompacted if the cluster's history ends before revision: it was restored from a backup,
// or its folder was replaced, and a watcher would wait for commits that the new history numbers anew. A member
// that merely lags is told apart by a read that needs the quorum.
func (e *etcd) reached(ctx context.Context, revision int64) error {
	asking, cancel := context.WithTimeout(ctx, quorumPatience)
	defer cancel()
	answer, err := e.client.Get(asking, e.prefix+"\x00", clientv3.WithCountOnly())
	if err != nil {
		return fault(ctx, "read the revision under", e.prefix, err)
	}
	if answer.Header.Revision < revision {
		return fmt.Errorf("%w (asked for what follows revision %d, the store is at %d: its history was replaced)",
			store.ErrCompacted, revision, answer.Header.Revision)
	}
	return nil
}

// commits groups etcd's events by revision. One answer holds each of its revisions whole: the watch does not
// ask for fragments.
func (e *etcd) commits(events []*clientv3.Event) []store.Event {
	var out []store.Event
	for _, event := range events {
		revision := event.Kv.ModRevision
		if len(out) == 0 || out[len(out)-1].Revision != revision {
			out = append(out, store.Event{Revision: revision})
		}
		at := &out[len(out)-1]
		key := strings.TrimPrefix(string(event.Kv.Key), e.prefix)
		if event.Type == clientv3.EventTypeDelete {
			at.Deletes = append(at.Deletes, key)
		} else {
			at.Puts = append(at.Puts, store.Record{Key: key, Value: event.Kv.Value, Revision: revision})
		}
	}
	for i := range out {
		slices.SortFunc(out[i].Puts, func(a, b store.Record) int { return strings.Compare(a.Key, b.Key) })
		slices.Sort(out[i].Deletes)
	}
	return out
}

// Commit implements store.Store: one etcd transaction.
func (e *etcd) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	if err := store.Validate(ops); err != nil {
		return 0, err
	}
	var (
		conditions []clientv3.Cmp
		changes    []clientv3.Op
		finds      []clientv3.Op // reads that tell which condition failed
		guarded    []store.Op
	)
	for _, op := range ops {
		key := e.full(op)
		switch op.Kind {
		case store.KindPut:
			changes = append(changes, clientv3.OpPut(key, string(op.Value)))
		case store.KindDelete:
			changes = append(changes, clientv3.OpDelete(key))
		}
		if op.If != store.AnyRevision {
			conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(key), "=", op.If))
			finds = append(finds, clientv3.OpGet(key, clientv3.WithKeysOnly()))
			guarded = append(guarded, op)
		}
	}
	answer, err := e.client.Txn(ctx).If(conditions...).Then(changes...).Else(finds...).Commit()
	if err != nil {
		return 0, fault(ctx, "commit to", e.full(ops[0]), err)
	}
	if answer.Succeeded {
		return answer.Header.Revision, nil
	}
	for i, op := range guarded {
		have := int64(0)
		if kvs := answer.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			have = kvs[0].ModRevision
		}
		if have != op.If {
			return 0, &store.ConflictError{Key: op.Key, Want: op.If, Have: have, Whole: op.Whole}
		}
	}
	return 0, &store.ConflictError{Key: guarded[0].Key, Want: guarded[0].If, Have: store.AnyRevision, Whole: guarded[0].Whole}
}

func (e *etcd) full(op store.Op) string {
	if op.Whole {
		return op.Key
	}
	return e.prefix + op.Key
}

// fault maps etcd's errors to the store's, and says what was tried.
func fault(ctx context.Context, verb, key string, err error) error {
	var kind error
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		kind = store.ErrNoSpace
	case errors.Is(err, rpctypes.ErrCompacted):
		kind = store.ErrCompacted
	case errors.Is(err, rpctypes.ErrTooManyOps), errors.Is(err, rpctypes.ErrRequestTooLarge):
		kind = store.ErrTooLarge
	case ctx.Err() != nil:
		kind = context.Cause(ctx)
	default:
		return fmt.Errorf("etcdstore: %s %q: %w", verb, key, err)
	}
	return fmt.Errorf("etcdstore: %s %q: %w (%w)", verb, key, kind, err)
}
