package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/state"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

// record is an instance as a registry keeps it.
type record struct {
	Addr    string            `json:"addr"`
	Service string            `json:"service"`
	Device  string            `json:"device"`
	Weight  int               `json:"weight"`
	Share   int               `json:"share"`
	Labels  map[string]string `json:"labels,omitempty"`
}

func (r *record) key() string { return r.Service + "/" + r.Addr }

func newRecord(i, services int) *record {
	return &record{
		Addr: fmt.Sprintf("10.%d.%d.%d:8080", i>>16&255, i>>8&255, i&255), Service: fmt.Sprintf("m%05d.api", i%services),
		Device: fmt.Sprintf("device-%06d", i), Weight: 100, Share: 100, Labels: map[string]string{"site": fmt.Sprintf("site-%02d", i%40)},
	}
}

// replica is a state.DB that runs.
type replica struct {
	*state.DB
	table *state.Table[record]
	stop  func() error
}

func newReplica(ctx context.Context, s store.Store) (*replica, error) {
	r := &replica{table: state.NewTable("instance", (*record).key, state.Index("service", func(r *record) []string { return []string{r.Service} }))}
	var err error
	if r.DB, err = state.New(state.Config{Store: s, Tables: []state.Schema{r.table}}); err != nil {
		return nil, err
	}
	r.stop = background(ctx, r.Run)
	if err := r.Ready(ctx); err != nil {
		return nil, errors.Join(err, r.stop())
	}
	return r, nil
}

// background runs f until stop is called; stop waits for its end.
func background(ctx context.Context, f func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

// fill commits rows in the form that a replica reads.
func fill(ctx context.Context, s store.Store, rows map[string][]byte, most int) error {
	var ops []store.Op
	for key, value := range rows {
		ops = append(ops, store.Put(key, value))
		if len(ops) == most {
			if _, err := s.Commit(ctx, ops...); err != nil {
				return err
			}
			ops = ops[:0]
		}
	}
	if len(ops) == 0 {
		return nil
	}
	_, err := s.Commit(ctx, ops...)
	return err
}

// state measures the replica of the record at the deck's scale, and a durable update of it.
func (s *suite) state(ctx context.Context) error {
	n, services := s.scaled(deckInstances), s.scaled(deckServices)
	s.Progress(fmt.Sprintf("state: %d rows", n))
	encoded, plain, byService := make(map[string][]byte, n), make(map[string]*record, n), make(map[string][]*record, services)
	keys := make([]string, 0, n)
	for i := range n {
		r := newRecord(i, services)
		value, err := json.Marshal(r)
		if err != nil {
			return err
		}
		encoded["instance/"+r.key()], plain[r.key()] = value, r
		byService[r.Service] = append(byService[r.Service], r)
		keys = append(keys, r.key())
	}
	memory := store.NewMemory()
	if err := fill(ctx, memory, encoded, 4000); err != nil {
		return err
	}
	before, began := heap(), time.Now()
	r, err := newReplica(ctx, memory)
	if err != nil {
		return err
	}
	load := time.Since(began)
	held := max(heap()-before, 1) // of few rows less than what others free meanwhile
	began = time.Now()
	size := 0
	for _, value := range encoded {
		size += len(value)
		if err := json.Unmarshal(value, new(record)); err != nil {
			return err
		}
	}
	s.add("state.load", load.Seconds()*1e3, "ms", time.Since(began).Seconds()*1e3, "decode the rows, keep nothing")
	s.add("state.memory", held/float64(n), "B/row", float64(size)/float64(n), "the rows as they are stored")
	err = s.stateReads(r, keys, plain, byService)
	if err == nil {
		err = s.stateUpdate(ctx, r, memory, services)
	}
	if err := errors.Join(err, r.stop()); err != nil {
		return err
	}
	return s.stateDurable(ctx)
}

// heap is what is in use once all that can go has gone.
func heap() float64 {
	runtime.GC()
	runtime.GC() // what a pool holds goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

func (s *suite) stateReads(r *replica, keys []string, plain map[string]*record, byService map[string][]*record) error {
	stride := len(keys)/7919*7919 + 7919
	get, err := s.each(func(i int) error {
		if _, ok := r.table.Get(r.Snapshot(), keys[i*stride%len(keys)]); !ok {
			return errors.New("a row is missing")
		}
		return nil
	})
	if err != nil {
		return err
	}
	floor, err := s.each(func(i int) error {
		if plain[keys[i*stride%len(keys)]] == nil {
			return errors.New("a row is missing")
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.add("state.get", get, "ns", floor, "a plain map, no snapshots")
	weight := 0
	by, err := s.each(func(i int) error {
		for row := range r.table.By(r.Snapshot(), "service", plain[keys[i%len(keys)]].Service) {
			weight += row.Value.Weight
		}
		return nil
	})
	if err != nil {
		return err
	}
	floor, err = s.each(func(i int) error {
		for _, row := range byService[plain[keys[i%len(keys)]].Service] {
			weight += row.Weight
		}
		return nil
	})
	if weight == 0 {
		return errors.New("no service has instances")
	}
	s.add("state.index", by, "ns", floor, "a plain map of lists, no snapshots")
	return err
}

func (s *suite) stateUpdate(ctx context.Context, r *replica, memory store.Store, services int) error {
	update, err := s.each(func(i int) error {
		row := newRecord(i%100, services)
		row.Share = i % 100
		_, err := r.Update(ctx, func(tx *state.Tx) error { r.table.Put(tx, row); return nil })
		return err
	})
	if err != nil {
		return err
	}
	floor, err := s.each(func(i int) error {
		row := newRecord(i%100, services)
		row.Share = i % 100
		value, err := json.Marshal(row)
		if err != nil {
			return err
		}
		_, err = memory.Commit(ctx, store.Put("beside/"+row.key(), value))
		return err
	})
	s.add("state.update", update/1e3, "us", floor/1e3, "encode and commit, no replica")
	return err
}

// stateDurable measures updates of one row in the embedded etcd: alone, and 64 at a time.
func (s *suite) stateDurable(ctx context.Context) error {
	s.Progress("state: embedded etcd")
	floor, err := s.durable()
	if err != nil {
		return err
	}
	member, err := etcdstore.Embedded(etcdstore.EmbeddedConfig{Dir: filepath.Join(s.dir, "etcd")})
	if err != nil {
		return err
	}
	if err := member.Start(ctx); err != nil {
		return err
	}
	defer member.Close()
	r, err := newReplica(ctx, etcdstore.New(member.Client(), "/bench/"))
	if err != nil {
		return err
	}
	put := func(i int) error {
		row := newRecord(i%1000, 100)
		row.Share = i % 100
		_, err := r.Update(ctx, func(tx *state.Tx) error { r.table.Put(tx, row); return nil })
		return err
	}
	one, err := s.each(put)
	if err == nil {
		s.add("state.durable", one/1e3, "us", floor/1e3, "4 KiB appended and fdatasync")
		var many float64
		many, err = s.crowd(64, func(worker, i int) error { return put(worker<<10 + i) })
		s.addRate("state.durable.64", 1e9/many, "updates/s", 1e9/floor, "4 KiB appended and fdatasync, one by one")
	}
	return errors.Join(err, r.stop())
}
