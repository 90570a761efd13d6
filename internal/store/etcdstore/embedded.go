package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap/zapcore"

	"github.com/zhiyun-ops/zhiyun/internal/lockfile"
)

// EmbeddedConfig configures a member inside the process. A zero field means its default.
type EmbeddedConfig struct {
	// Dir is the data folder. It is made if absent and kept at mode 0700; one process at a time may have it.
	// Required.
	Dir string
	// Keep is how long old revisions are kept for watchers that fall behind or reconnect; 1 h by default, at
	// least 1 minute. One that comes later is told to resync.
	Keep time.Duration
	// Quota bounds the database's size in bytes; 8 GiB by default. Beyond it writes fail with
	// store.ErrNoSpace until space is freed.
	Quota int64
	// MaxOps is how many operations one commit may have; 4096 by default. A cluster of its own takes 128
	// unless told otherwise, so code that must run on both stays within store.MaxOps.
	MaxOps int
	// MaxBytes is how large one commit may be; 10 MiB by default. The same caution holds.
	MaxBytes int
	// Logger gets etcd's lines; nil is off. What etcd says at info comes out as debug.
	Logger *slog.Logger
}

// Member is an etcd member inside this process, alone in its cluster, reachable by no one else.
//
//	new ──Start──> serving ──ctx ends, Close──> closed
//	                  └──── disk fails ───────> failed (acknowledges nothing more; the process should end)
type Member struct {
	config EmbeddedConfig

	mu     sync.Mutex
	state  memberState      // guarded by mu
	lock   *os.File         // guarded by mu; holds the folder
	server *embed.Etcd      // guarded by mu
	client *clientv3.Client // guarded by mu

	failure chan struct{} // closed once broken is set
	failing sync.Once
	broken  error // set before failure is closed, read after
}

type memberState uint8

const (
	memberNew memberState = iota
	memberServing
	memberClosed
)

// Embedded checks the configuration and returns a member that is not started; nothing is opened.
func Embedded(config EmbeddedConfig) (*Member, error) {
	var faults []error
	if config.Dir == "" {
		faults = append(faults, errors.New("etcdstore: EmbeddedConfig.Dir is empty; give a folder for the data"))
	}
	if config.Keep == 0 {
		config.Keep = time.Hour
	}
	if config.Keep < time.Minute {
		faults = append(faults, fmt.Errorf("etcdstore: EmbeddedConfig.Keep is %v; give at least 1m, or 0 for 1h", config.Keep))
	}
	if config.Quota == 0 {
		config.Quota = 8 << 30
	}
	if config.Quota < 1<<20 {
		faults = append(faults, fmt.Errorf("etcdstore: EmbeddedConfig.Quota is %d bytes; give at least %d, or 0 for 8 GiB", config.Quota, 1<<20))
	}
	if config.MaxOps == 0 {
		config.MaxOps = 4096
	}
	if config.MaxOps < 128 {
		faults = append(faults, fmt.Errorf("etcdstore: EmbeddedConfig.MaxOps is %d; give at least 128, or 0 for 4096", config.MaxOps))
	}
	if config.MaxBytes == 0 {
		config.MaxBytes = 10 << 20
	}
	if config.MaxBytes < 3<<19 {
		faults = append(faults, fmt.Errorf("etcdstore: EmbeddedConfig.MaxBytes is %d; give at least %d, or 0 for 10 MiB", config.MaxBytes, 3<<19))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return &Member{config: config, failure: make(chan struct{})}, nil
}

// Start opens the folder and returns when the member takes reads and writes. A second call does nothing.
func (m *Member) Start(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.state {
	case memberServing:
		return nil
	case memberClosed:
		return fmt.Errorf("etcdstore: start the member in %s: it was closed; make a new one", m.config.Dir)
	}
	if err := m.takeDir(); err != nil {
		return err
	}
	server, err := m.open(ctx)
	if err != nil {
		m.freeDir()
		return err
	}
	m.server, m.client, m.state = server, v3client.New(server.Server), memberServing
	return nil
}

// open starts the server in a goroutine of its own: where etcd meets a broken disk it stops the goroutine for
// good, see fail. That goroutine ends with StartEtcd, or, after a failure, with the process.
func (m *Member) open(ctx context.Context) (*embed.Etcd, error) {
	type result struct {
		server *embed.Etcd
		err    error
	}
	started := make(chan result, 1)
	go func() {
		server, err := embed.StartEtcd(m.etcdConfig())
		started <- result{server, err}
	}()
	var r result
	select {
	case r = <-started:
	case <-m.failure:
		return nil, m.broken
	}
	if r.err != nil {
		return nil, m.diskError("open", r.err)
	}
	select {
	case <-r.server.Server.ReadyNotify():
		return r.server, nil
	case <-m.failure:
		return nil, m.broken
	case err := <-r.server.Err():
		r.server.Close()
		return nil, fmt.Errorf("etcdstore: start the member in %s: %w", m.config.Dir, err)
	case <-ctx.Done():
		r.server.Close()
		return nil, fmt.Errorf("etcdstore: start the member in %s: %w", m.config.Dir, context.Cause(ctx))
	}
}

func (m *Member) etcdConfig() *embed.Config {
	c := embed.NewConfig()
	c.Name = "zhiyun"
	c.Dir = m.config.Dir
	// No listener at all. The advertised peer address is a name that the cluster of one never dials.
	peer := url.URL{Scheme: "unix", Host: "zhiyun"}
	c.ListenPeerUrls, c.ListenClientUrls, c.AdvertiseClientUrls = nil, nil, nil
	c.AdvertisePeerUrls = []url.URL{peer}
	c.InitialCluster = c.Name + "=" + peer.String()
	c.EnableGRPCGateway = false
	c.AutoCompactionMode = embed.CompactorModePeriodic
	c.AutoCompactionRetention = m.config.Keep.String()
	c.QuotaBackendBytes = m.config.Quota
	c.MaxTxnOps = uint(m.config.MaxOps)
	c.MaxRequestBytes = uint(m.config.MaxBytes)
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapLogger(m.config.Logger, fatalHook{m}))
	return c
}

// takeDir makes the folder private and locks it, so that a second server finds out at once and not by waiting.
func (m *Member) takeDir() error {
	if err := os.MkdirAll(m.config.Dir, 0o700); err != nil {
		return fmt.Errorf("etcdstore: make the data folder: %w", m.diskError("open", err))
	}
	if err := os.Chmod(m.config.Dir, 0o700); err != nil {
		return fmt.Errorf("etcdstore: make the data folder private: %w", err)
	}
	lock, err := lockfile.Take(filepath.Join(m.config.Dir, "lock"))
	if errors.Is(err, lockfile.ErrHeld) {
		return fmt.Errorf("etcdstore: the data folder %s is in use by another process; stop that one, or give another folder", m.config.Dir)
	}
	if err != nil {
		return m.diskError("open", err)
	}
	m.lock = lock
	return nil
}

func (m *Member) freeDir() {
	if m.lock != nil {
		_ = m.lock.Close() // frees the lock; the file stays
		m.lock = nil
	}
}

// Client returns the member's client, or nil before Start. It is closed with the member.
func (m *Member) Client() *clientv3.Client {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.client
}

// Failed is closed when the member's disk has failed.
func (m *Member) Failed() <-chan struct{} { return m.failure }

// Run starts the member if it is not started, serves until ctx ends, and closes it. It returns nil after a clean
// stop, and an error that wraps ErrDisk and names the disk when that has failed or is full.
func (m *Member) Run(ctx context.Context) error {
	if err := m.Start(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	server := m.server
	m.mu.Unlock()
	if server == nil {
		return nil // closed in between
	}
	var err error
	select {
	case <-ctx.Done():
	case <-server.Server.StopNotify():
		err = fmt.Errorf("etcdstore: the member in %s stopped by itself", m.config.Dir)
	case <-m.failure:
		err = m.broken
	}
	return errors.Join(err, m.Close())
}

// Close stops the member and frees the folder. It is idempotent and may be called before Start. After a failed
// disk it returns at once, with what is left of the server: only the end of the process frees that.
func (m *Member) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	serving := m.state == memberServing
	m.state = memberClosed
	if !serving {
		return nil
	}
	closed := make(chan error, 1)
	go func() {
		err := m.client.Close()
		m.server.Close()
		closed <- err
	}()
	select {
	case <-m.failure:
		return nil
	case err := <-closed:
		m.freeDir()
		if err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("etcdstore: close the member in %s: %w", m.config.Dir, err)
		}
		return nil
	}
}

// fatalHook stops the goroutine in which etcd found that it cannot go on. etcd itself would end the process
// there; here the goroutine waits for the end of the process instead, so that not a line of it runs after the
// failure, nothing is acknowledged that is not on disk, and Run can say what happened.
type fatalHook struct{ member *Member }

// OnWrite implements zapcore.CheckWriteHook.
func (h fatalHook) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	cause := errors.New(entry.Message)
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			cause = fmt.Errorf("%s: %w", entry.Message, err)
		}
	}
	h.member.fail(cause)
	select {}
}

func (m *Member) fail(cause error) {
	m.failing.Do(func() {
		m.broken = m.diskError("write to", cause)
		close(m.failure)
	})
}
