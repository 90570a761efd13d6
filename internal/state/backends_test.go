package state_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

// etcd is one embedded member for all tests of the package, started by the first that wants it.
var etcd struct {
	once   sync.Once
	dir    string
	member *etcdstore.Member
	err    error
	spaces atomic.Int64
}

func TestMain(m *testing.M) {
	code := m.Run()
	if etcd.member != nil {
		if err := etcd.member.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if etcd.dir != "" {
		_ = os.RemoveAll(etcd.dir)
	}
	os.Exit(code)
}

// inEtcd returns an empty store in the shared member.
func inEtcd(t testing.TB) store.Store {
	t.Helper()
	etcd.once.Do(func() {
		if etcd.dir, etcd.err = os.MkdirTemp("", "zhiyun-state-"); etcd.err != nil {
			return
		}
		if etcd.member, etcd.err = etcdstore.Embedded(etcdstore.EmbeddedConfig{Dir: etcd.dir}); etcd.err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		etcd.err = etcd.member.Start(ctx)
	})
	if etcd.err != nil {
		t.Fatal(etcd.err)
	}
	return etcdstore.New(etcd.member.Client(), fmt.Sprintf("/%d/", etcd.spaces.Add(1)))
}

// over runs a test over memory and over etcd.
func over(t *testing.T, run func(t *testing.T, s store.Store)) {
	t.Helper()
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		run(t, store.Prefixed(store.NewMemory(), "/test/"))
	})
	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		run(t, inEtcd(t))
	})
}
