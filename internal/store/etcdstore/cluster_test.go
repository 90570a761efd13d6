package etcdstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
	"github.com/zhiyun-ops/zhiyun/internal/store/storetest"
)

// memberEnv makes the test binary one member of a cluster: "index dir peers... client", in this order. It lives until
// it is killed, or until its standard input ends because the test is gone.
const memberEnv = "ZHIYUN_TEST_ETCD_MEMBER"

func memberMain(spec string) error {
	var i int
	var dir, client string
	var peers [3]string
	if _, err := fmt.Sscan(spec, &i, &dir, &peers[0], &peers[1], &peers[2], &client); err != nil {
		return err
	}
	peer, err := url.Parse(peers[i])
	if err != nil {
		return err
	}
	address, err := url.Parse(client)
	if err != nil {
		return err
	}
	config := embed.NewConfig()
	config.Name, config.Dir = fmt.Sprint("m", i), dir
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*address}, []url.URL{*address}
	config.InitialCluster = fmt.Sprintf("m0=%s,m1=%s,m2=%s", peers[0], peers[1], peers[2])
	config.TickMs, config.ElectionMs = 50, 500
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	member, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	<-member.Server.ReadyNotify()
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// cluster is three members, each a process, any of which may be killed and started again.
type cluster struct {
	t       testing.TB
	dirs    [3]string
	peers   [3]string
	clients [3]string
	members [3]*exec.Cmd
	admin   *clientv3.Client
}

// freePorts returns addresses at which members may come and go.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var out []string
	for range n {
		out = append(out, "http://"+addrtest.Free(t))
	}
	return out
}

func startCluster(t testing.TB) *cluster {
	t.Helper()
	ports := freePorts(t, 6)
	c := &cluster{t: t, peers: [3]string(ports[:3]), clients: [3]string(ports[3:])}
	var starting sync.WaitGroup
	for i := range c.members {
		c.dirs[i] = t.TempDir()
		starting.Go(func() { c.start(i) })
	}
	starting.Wait()
	t.Cleanup(func() {
		for i := range c.members {
			c.kill(i)
		}
	})
	for i := range c.members {
		if c.members[i] == nil {
			t.FailNow()
		}
	}
	c.admin = c.dial(0)
	return c
}

// start runs one member and waits until it takes part.
func (c *cluster) start(i int) {
	self, err := os.Executable()
	if err != nil {
		c.t.Error(err)
		return
	}
	member := exec.Command(self)
	member.Env = append(os.Environ(), memberEnv+"="+fmt.Sprintln(i, c.dirs[i], c.peers[0], c.peers[1], c.peers[2], c.clients[i]))
	member.Stderr = c.t.Output()
	_, inErr := member.StdinPipe() // ends with this process
	out, err := member.StdoutPipe()
	if err := errors.Join(inErr, err, member.Start()); err != nil {
		c.t.Errorf("start member %d: %v", i, err)
		return
	}
	c.members[i] = member
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		c.t.Errorf("member %d says %q, %v; want that it is ready", i, line, err)
	}
}

// kill ends a member with SIGKILL.
func (c *cluster) kill(i int) {
	if c.members[i] != nil {
		_ = c.members[i].Process.Kill()
		_ = c.members[i].Wait() // says that it was killed
		c.members[i] = nil
	}
}

// leader returns the member that leads, or -1.
func (c *cluster) leader(ctx context.Context) int {
	for i := range c.members {
		asking, cancel := context.WithTimeout(ctx, time.Second)
		status, err := c.admin.Status(asking, c.clients[i])
		cancel()
		if err == nil && status.Leader == status.Header.MemberId {
			return i
		}
	}
	return -1
}

// dial returns a client that knows every member but begins with the given one.
func (c *cluster) dial(first int) *clientv3.Client {
	c.t.Helper()
	endpoints := []string{c.clients[first], c.clients[(first+1)%3], c.clients[(first+2)%3]}
	client, err := etcdstore.Dial(etcdstore.DialConfig{Endpoints: endpoints, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = client.Close() })
	return client
}

// Leaders die under clients that write, read and watch. What was acknowledged stays; histories are linearizable; each
// watcher sees each commit once, in order and whole. I8.
func TestLeadersLostUnderLoad(t *testing.T) {
	t.Parallel()
	ctx := within(t, 5*time.Minute)
	c := startCluster(t)
	var stores []store.Store
	for i := range 3 {
		stores = append(stores, etcdstore.New(c.dial(i), "/test/"))
	}
	var recorders []*storetest.Recorder
	for _, s := range stores {
		recorders = append(recorders, storetest.Record(ctx, s, "w/"))
	}
	journal := storetest.NewJournal(stores[0])
	writing, stopWriting := context.WithCancel(ctx)
	var working sync.WaitGroup
	working.Go(func() { journal.Scribble(writing, 2, 1_000_000, "w/") })
	storetest.Registers(t, ctx, stores, storetest.RegistersConfig{Clients: 6, Ops: 60, Keys: 4, Disturb: func(ctx context.Context) {
		for range 2 {
			victim := c.leader(ctx)
			for ; victim < 0 && ctx.Err() == nil; victim = c.leader(ctx) {
				c.wait(ctx)
			}
			if ctx.Err() != nil {
				return
			}
			before, _ := journal.Acknowledged()
			c.kill(victim)
			for now, _ := journal.Acknowledged(); now < before+20 && ctx.Err() == nil; now, _ = journal.Acknowledged() {
				c.wait(ctx) // the others go on without it
			}
			c.start(victim)
		}
	}})
	stopWriting()
	working.Wait()
	for _, r := range recorders {
		r.Check(t, journal)
	}
	acknowledged, unknown := journal.Acknowledged()
	t.Logf("%d commits acknowledged, %d without an answer", acknowledged, unknown)
}

// wait lets a moment pass between two looks at the cluster.
func (c *cluster) wait(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(20 * time.Millisecond):
	}
}

// Without a quorum nothing is said that may be untrue: reads and writes fail, watches end with an error.
func TestWithoutQuorumNothingIsClaimed(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	client := c.dial(0)
	s := etcdstore.New(client, "/test/")
	ctx := within(t, 3*time.Minute)
	revision, err := s.Commit(ctx, store.Put("a", []byte("1")))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for _, err := range s.Watch(ctx, "", revision) {
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	c.kill(1)
	c.kill(2)
	if err := <-ended; errors.Is(err, store.ErrCompacted) || ctx.Err() != nil {
		t.Errorf("the watch ended with %v, want that the cluster does not answer", err)
	}
	short := within(t, time.Second)
	if records, _, err := s.List(short, ""); err == nil {
		t.Errorf("a listing without a quorum: %v, want an error", records)
	}
	if _, err := s.Commit(within(t, time.Second), store.Put("b", nil)); err == nil {
		t.Error("a commit without a quorum was acknowledged")
	}
	c.start(1)
	for event, err := range s.Watch(ctx, "", revision-1) {
		if err != nil {
			continue // until the cluster has a leader again
		}
		if event.Revision != revision || event.Puts[0].Key != "a" {
			t.Errorf("resumed, the watch yields %+v", event)
		}
		return
	}
	records, _, err := s.List(ctx, "a")
	if err != nil || len(records) != 1 {
		t.Errorf("with a quorum again: %v, %v", records, err)
	}
}
