// Package pgtest runs a real PostgreSQL for a test: a cluster of its own in a folder of its own, on a unix socket, gone with the test.
package pgtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a PostgreSQL that a test may kill and start again.
type Server struct {
	t      testing.TB
	bin    string // folder of the server's programs
	dir    string // with data/ and the socket
	cred   *syscall.Credential
	server *exec.Cmd
	said   *bytes.Buffer
}

// Start runs a PostgreSQL with fsync on until the test ends. Where none is installed the test is skipped, or fails if ZHIYUN_REQUIRE is 1.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, bin: programs(t)}
	dir, err := os.MkdirTemp("", "pg") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	s.dir = dir
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Getuid() == 0 { // the server refuses to run as root
		s.cred = unprivileged(t)
		if err := os.Chown(dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := s.command("initdb", "-D", s.data(), "-U", "zhiyun", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	s.Run()
	t.Cleanup(s.Kill)
	return s
}

// programs finds the folder of the newest server's programs.
func programs(t testing.TB) string {
	t.Helper()
	if path, err := exec.LookPath("postgres"); err == nil {
		return filepath.Dir(path)
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		if os.Getenv("ZHIYUN_REQUIRE") == "1" {
			t.Fatal("PostgreSQL is not installed; apt-get install postgresql")
		}
		t.Skip("PostgreSQL is not installed; apt-get install postgresql to run this test")
	}
	release := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) // 0 sorts first
		return n
	}
	slices.SortFunc(found, func(a, b string) int { return release(a) - release(b) })
	return filepath.Dir(found[len(found)-1])
}

func unprivileged(t testing.TB) *syscall.Credential {
	t.Helper()
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if uidErr == nil && gidErr == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	t.Fatal("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
	return nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	command := exec.Command(filepath.Join(s.bin, name), args...)
	command.Dir = s.dir
	command.SysProcAttr = attributes(s.cred)
	return command
}

// Run starts the server that is not running, and waits until it answers.
func (s *Server) Run() {
	s.t.Helper()
	s.said = &bytes.Buffer{}
	s.server = s.command("postgres", "-D", s.data(), "-k", s.dir, "-h", "", "-c", "max_connections=200", "-c", "shared_buffers=64MB", "-c", "log_min_messages=fatal")
	s.server.Stdout, s.server.Stderr = s.said, s.said
	if err := s.server.Start(); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for wait := time.NewTicker(20 * time.Millisecond); ; {
		conn, err := pgx.Connect(ctx, s.dsn("postgres"))
		if err == nil {
			wait.Stop()
			conn.Close(ctx)
			return
		}
		select {
		case <-wait.C:
		case <-ctx.Done():
			s.t.Fatalf("PostgreSQL does not answer: %v\n%s", err, s.said)
		}
	}
}

// Kill ends the server as a power cut would, with all its processes.
func (s *Server) Kill() {
	if s.server == nil {
		return
	}
	// The postmaster's death ends its children; each holds the shared memory until then.
	_ = s.server.Process.Kill()
	_ = s.server.Wait() // it was killed
	s.server = nil
}

func (s *Server) dsn(database string) string {
	return fmt.Sprintf("postgres://zhiyun@/%s?host=%s", database, s.dir)
}

// Database makes an empty database and returns where it is.
func (s *Server) Database(t testing.TB) (dsn string) {
	t.Helper()
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, s.dsn("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	name := fmt.Sprintf("t%d", time.Now().UnixNano())
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return s.dsn(name)
}
