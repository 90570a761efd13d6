package etcdstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

// childEnv makes the test binary a server that dies: it embeds a member in this folder, writes as fast as it can, and
// says each acknowledged write on its output.
const (
	childEnv     = "ZHIYUN_TEST_ETCD_DIR"
	childSizeEnv = "ZHIYUN_TEST_ETCD_VALUE"
)

func TestMain(m *testing.M) {
	roles := map[string]func(string) error{childEnv: child, memberEnv: memberMain}
	for name, role := range roles {
		if value := os.Getenv(name); value != "" {
			if err := role(value); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

func child(dir string) error {
	size, _ := strconv.Atoi(os.Getenv(childSizeEnv))
	member, err := etcdstore.Embedded(etcdstore.EmbeddedConfig{Dir: dir})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := member.Start(ctx); err != nil {
		return err
	}
	s := etcdstore.New(member.Client(), "/")
	elector, err := etcdstore.NewElector(etcdstore.ElectorConfig{Client: member.Client(), Prefix: "/leader/", TTL: time.Minute})
	if err != nil {
		return err
	}
	term, err := elector.Campaign(ctx, "writer", "child")
	if err != nil {
		return err
	}
	s = store.Fenced(s, term)
	var out sync.Mutex
	for w := range 4 {
		go func() {
			for i := 1; ; i++ {
				value := fmt.Sprintf("%d-%d ", os.Getpid(), i)
				key := fmt.Sprintf("k/%d-%d", w, i%50)
				revision, err := s.Commit(ctx, store.Put(key, []byte(value+strings.Repeat("x", size))))
				if err != nil {
					return
				}
				out.Lock()
				fmt.Println(revision, key, value)
				out.Unlock()
			}
		}()
	}
	return member.Run(ctx)
}

// writer is a running child and what it acknowledged.
type writer struct {
	command *exec.Cmd
	lines   *bufio.Scanner
	stderr  *strings.Builder
}

func startWriter(t *testing.T, dir string, size int) *writer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{command: exec.Command(self), stderr: &strings.Builder{}}
	w.command.Env = append(os.Environ(), childEnv+"="+dir, childSizeEnv+"="+strconv.Itoa(size))
	w.command.Stderr = w.stderr
	pipe, err := w.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.lines = bufio.NewScanner(pipe)
	if err := w.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.command.Process.Kill() // it is dead already, unless the test failed
		_ = w.command.Wait()
	})
	return w
}

// acks maps a key to its last acknowledged revision and value.
type acks map[string]ack

type ack struct {
	revision int64
	value    string
}

// read takes the next acknowledgement; false at the end.
func (w *writer) read(into acks) bool {
	if !w.lines.Scan() {
		return false
	}
	var a ack
	var key string
	if n, _ := fmt.Sscan(w.lines.Text(), &a.revision, &key, &a.value); n == 3 && a.revision > into[key].revision {
		into[key] = a
	}
	return true
}

// verify opens the folder and looks for every acknowledged write, or a later one.
func (into acks) verify(t *testing.T, dir string) {
	t.Helper()
	member := start(t, etcdstore.EmbeddedConfig{Dir: dir})
	defer func() {
		if err := member.Close(); err != nil {
			t.Error(err)
		}
	}()
	records, _, err := etcdstore.New(member.Client(), "/").List(within(t, time.Minute), "k/")
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]store.Record)
	for _, r := range records {
		have[r.Key] = r
	}
	for key, a := range into {
		r, ok := have[key]
		value, _, _ := strings.Cut(string(r.Value), " ")
		if !ok || r.Revision < a.revision || r.Revision == a.revision && value != a.value {
			t.Errorf("%s was acknowledged as %s at %d; after the restart it is %s at %d", key, a.value, a.revision, value, r.Revision)
		}
	}
	t.Logf("%d keys with acknowledged writes, the last at %d, are all there", len(into), into.last())
}

func (into acks) last() int64 {
	last := int64(0)
	for _, a := range into {
		last = max(last, a.revision)
	}
	return last
}

// I9: kill -9 in the middle of writes, again and again; every acknowledged write is there afterwards. The child leads
// under the same id each time, so that it never waits for its own lease of a minute.
func TestKilledMemberLosesNoAcknowledgedWrite(t *testing.T) {
	t.Parallel()
	dir, acknowledged := t.TempDir(), make(acks)
	for round := range 3 {
		w := startWriter(t, dir, 0)
		for n := 0; n < 300+round*100; n++ {
			if !w.read(acknowledged) {
				t.Fatalf("round %d: the writer ended after %d writes: %s", round, n, w.stderr)
			}
		}
		if err := w.command.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for w.read(acknowledged) { // what it had said before it died
		}
		acknowledged.verify(t, dir)
	}
}

func TestFolderIsPrivateAndForOneProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, etcdstore.EmbeddedConfig{Dir: dir})
	second, err := etcdstore.Embedded(etcdstore.EmbeddedConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "in use by another process") || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second member in the folder: %v, want an error that names it and says what to do", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o700 {
		t.Errorf("the folder has mode %o, want 700", mode)
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := etcdstore.Embedded(etcdstore.EmbeddedConfig{Keep: time.Second, Quota: 1, MaxOps: 1, MaxBytes: 1})
	expect(t, err, "Dir", "Keep", "Quota", "MaxOps", "MaxBytes")
	_, err = etcdstore.Dial(etcdstore.DialConfig{Endpoints: []string{"http://10.0.0.1:2379", "https://10.0.0.1:2379", "10.0.0.1"}, Username: "u", Timeout: -1})
	expect(t, err, "not encrypted", "DialConfig.TLS is nil", `"10.0.0.1"`, "Password", "Timeout")
	_, err = etcdstore.Dial(etcdstore.DialConfig{})
	expect(t, err, "Endpoints is empty")
	_, err = etcdstore.NewElector(etcdstore.ElectorConfig{TTL: time.Millisecond})
	expect(t, err, "Client", "Prefix", "TTL")
}

func expect(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted, want an error that names %v", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
}

func TestLifeCycle(t *testing.T) {
	t.Parallel()
	member, err := etcdstore.Embedded(etcdstore.EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if member.Client() != nil {
		t.Error("a member that was not started has a client")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	if err := member.Start(ctx); err != nil {
		t.Fatal(err)
	}
	go func() { done <- member.Run(ctx) }()
	if _, err := etcdstore.New(member.Client(), "/").Commit(ctx, store.Put("a", nil)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := errors.Join(member.Close(), member.Close()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := member.Start(t.Context()); err == nil {
		t.Error("a closed member starts again")
	}
}
