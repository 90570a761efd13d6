package server_test

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/etcdstore"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// oldProgram is a program of the first version: it registers an address, routes until it is given another one, reports, and
// stays until its input ends.
const oldProgram = `package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
)

func main() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	client, err := l5.New(l5.Config{Target: os.Args[1], Caller: "old.caller", ReportEvery: 20 * time.Millisecond})
	check(err)
	go client.Run(ctx)
	_, err = client.Register(ctx, "a", os.Args[2])
	check(err)
	for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
		r, err := client.Route(ctx, "a")
		check(err)
		r.Done(l5.Outcome{Latency: time.Millisecond})
		if r.Addr() == os.Args[3] {
			break
		}
	}
	fmt.Println("routed")
	io.Copy(io.Discard, os.Stdin)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
`

// oldVersion builds the programs of the release that CHANGELOG.md names first, and returns their folder.
var oldVersion = sync.OnceValues(func() (string, error) {
	changelog, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		return "", err
	}
	_, first, _ := strings.Cut(string(changelog), "## [0.1.0]")
	commit := regexp.MustCompile(`The commit ([0-9a-f]{7,40})`).FindStringSubmatch(first)
	if commit == nil {
		return "", os.ErrNotExist
	}
	dir, err := os.MkdirTemp("", "l5old")
	if err != nil {
		return "", err
	}
	oldDir = dir
	archive := exec.Command("git", "archive", commit[1])
	archive.Dir = "../.."
	var why bytes.Buffer
	archive.Stderr = &why
	files, err := archive.Output()
	if err != nil {
		return "", &missingError{commit[1], strings.TrimSpace(why.String())}
	}
	unpack := exec.Command("tar", "-x", "-C", dir)
	unpack.Stdin = bytes.NewReader(files)
	if err := unpack.Run(); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Join(dir, "cmd/oldprogram"), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "cmd/oldprogram/main.go"), []byte(oldProgram), 0o644); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", dir+"/bin/", "./cmd/l5-server", "./cmd/l5-agent", "./cmd/oldprogram")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return "", &buildError{string(out)}
	}
	return dir + "/bin/", nil
})

var oldDir string // set by oldVersion

type missingError struct{ commit, why string }

func (e *missingError) Error() string { return "no commit " + e.commit + " here: " + e.why }

type buildError struct{ out string }

func (e *buildError) Error() string { return "build the first version: " + e.out }

func TestMain(m *testing.M) {
	code := m.Run()
	if oldDir != "" {
		os.RemoveAll(oldDir)
	}
	os.Exit(code)
}

func old(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the first version")
	}
	bin, err := oldVersion()
	if err != nil {
		if os.Getenv("ZHIYUN_REQUIRE") == "1" {
			t.Fatalf("%v; fetch the whole history (git fetch --unshallow)", err)
		}
		t.Skip(err)
	}
	return bin
}

// start runs a program until stop is called or the test ends, and returns its output.
func start(t *testing.T, name string, args ...string) (out *bufio.Reader, stop func()) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var log bytes.Buffer
	cmd.Stderr = &log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		in.Close()
		cmd.Process.Signal(os.Interrupt)
		timer := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		defer timer.Stop()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(name), log.String())
		}
	})
	t.Cleanup(stop)
	return bufio.NewReader(pipe), stop
}

func short(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "l5")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func listening(t *testing.T, socket string) {
	t.Helper()
	l5test.Await(t, "it listens", func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

const oldAddr, newAddr = "127.0.0.1:1", "127.0.0.1:2"

// meet lets an old program and a new one, each with its target, find one another. What leaves is gone for the other.
func meet(t *testing.T, bin, oldTarget, newTarget string) {
	t.Helper()
	out, stop := start(t, bin+"oldprogram", oldTarget, oldAddr, newAddr)
	client := l5test.Client(t, newTarget, func(c *l5.Config) { c.Caller = "new.caller" })
	if _, err := client.Register(within(t), "a", newAddr); err != nil {
		t.Fatal(err)
	}
	seen := func() map[string]bool {
		addrs := map[string]bool{}
		for range 50 {
			r, err := client.Route(within(t), "a")
			if err != nil {
				t.Fatal(err)
			}
			addrs[r.Addr()] = true
			r.Done(l5.Outcome{Latency: time.Millisecond})
		}
		return addrs
	}
	l5test.Await(t, "the new program routes to the old one", func() bool { return seen()[oldAddr] })
	if line, err := out.ReadString('\n'); line != "routed\n" {
		t.Fatalf("the old program did not route to the new one: %q, %v", line, err)
	}
	stop()
}

// Programs, agents and servers of the first version and of this one understand each other, in every order, and a store
// that the first version wrote is served. Unknown fields and kinds are skipped by either.
func TestVersionSkew(t *testing.T) {
	bin := old(t)
	t.Run("old server", func(t *testing.T) {
		dir := short(t)
		_, stop := start(t, bin+"l5-server", "-listen", "unix://"+dir+"/s", "-data", dir+"/d")
		listening(t, dir+"/s")
		meet(t, bin, "unix://"+dir+"/s", "unix://"+dir+"/s")
		t.Run("new agent", func(t *testing.T) {
			_, halt := l5test.Agent(t, "unix://"+dir+"/s", func(c *agent.Config) { c.Socket = dir + "/a" })
			meet(t, bin, "unix://"+dir+"/a", "unix://"+dir+"/a")
			halt()
		})
		stop()
		t.Run("its store", func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			records, closeStore, err := etcdstore.Open(ctx, etcdstore.Config{Dir: dir + "/d"})
			if err != nil {
				t.Fatal(err)
			}
			defer closeStore()
			s, err := server.New(server.Config{Store: records, Grace: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			if err := s.Ready(ctx); err != nil {
				t.Fatal(err)
			}
			if got := s.Instances("a"); len(got) == 0 || got[0].Weight != l5.DefaultWeight || got[0].Share != 100 {
				t.Errorf("of what the first version wrote is left %+v", got)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("new server", func(t *testing.T) {
		s := l5test.NewServer(t, nil)
		meet(t, bin, s.Target(), s.Target())
		l5test.Await(t, "the old program's reports count", func() bool { return s.Sink.Sum("a", newAddr).Requests > 0 })
		t.Run("old agent", func(t *testing.T) {
			dir := short(t)
			start(t, bin+"l5-agent", "-upstream", s.Target(), "-socket", dir+"/a", "-snapshot", dir+"/f", "-device", "device-1")
			listening(t, dir+"/a")
			meet(t, bin, "unix://"+dir+"/a", "unix://"+dir+"/a")
		})
	})
}
