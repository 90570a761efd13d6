package server

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

// record is the state of record: etcd, embedded or a cluster.
type record struct {
	client  *clientv3.Client
	member  *etcdstore.Member // nil for a cluster
	elector store.Elector
	logger  *slog.Logger
}

// openRecord starts the embedded member, or connects to the cluster.
func openRecord(ctx context.Context, config Config) (*record, error) {
	r := &record{logger: config.Logger}
	if len(config.Etcd) > 0 {
		secure, err := config.etcdTLS()
		if err != nil {
			return nil, err
		}
		if r.client, err = etcdstore.Dial(etcdstore.DialConfig{Endpoints: config.Etcd, TLS: secure}); err != nil {
			return nil, err
		}
	} else {
		member, err := etcdstore.Embedded(etcdstore.EmbeddedConfig{Dir: filepath.Join(config.Dir, "etcd"), Logger: config.Logger})
		if err != nil {
			return nil, err
		}
		if err := member.Start(ctx); err != nil {
			return nil, err
		}
		r.member, r.client = member, member.Client()
	}
	elector, err := etcdstore.NewElector(etcdstore.ElectorConfig{Client: r.client, Prefix: "/zhiyun/leader/", TTL: 5 * time.Second})
	if err != nil {
		r.close()
		return nil, err
	}
	r.elector = elector
	return r, nil
}

// store is the records of one package.
func (r *record) store(name string) store.Store {
	return store.Rehearsable(etcdstore.New(r.client, "/zhiyun/"+name+"/"), name)
}

// run ends when the member fails: a server whose disk is broken must not go on.
func (r *record) run(ctx context.Context) error {
	if r.member == nil {
		<-ctx.Done()
		return nil
	}
	return r.member.Run(ctx)
}

func (r *record) close() {
	if r.member != nil {
		r.member.Close()
		return
	}
	r.client.Close()
}

// lead campaigns for name and, while it leads, runs what run makes of the leader's term. A term that is lost ends
// that run; then lead campaigns again.
func (r *record) lead(ctx context.Context, name, id string, run func(ctx context.Context, term *store.Term) error) error {
	for ctx.Err() == nil {
		term, err := r.elector.Campaign(ctx, name, id)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			// The cluster is away: agents and callers go on meanwhile, and so does the server.
			r.logger.Warn("campaigning again in a second", "for", name, "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		inner, cancel := context.WithCancel(ctx)
		go func() { // ends with inner, which this loop cancels
			select {
			case <-term.Done():
			case <-inner.Done():
			}
			cancel()
		}()
		err = run(inner, term)
		cancel()
		if ctx.Err() != nil {
			resign, done := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			term.Resign(resign) // best effort: the lease ends by itself
			done()
			return nil
		}
		// A write that the end of the term has overtaken is the end of the term, whoever tells of it first.
		if err != nil && !errors.Is(err, store.ErrFenced) {
			return err
		}
		r.logger.Info("a term is over", "of", name)
	}
	return nil
}
