// Package refdaemon is what the small reference daemons share: a record in an etcd of their own, and an HTTP API on
// a unix socket that only its owner can open.
package refdaemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// Flags are a daemon's flags, which exit with their meaning and an example when asked for help, and with status 2 when
// they are wrong.
func Flags(name, does, example string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "%s %s.\n\n  %s\n\nFlags:\n", name, does, strings.ReplaceAll(example, "\n", "\n  "))
		flags.PrintDefaults()
	}
	return flags
}

// Config of a daemon. Socket, Data and Prefix are required.
type Config struct {
	Socket string       // path of the API's socket, made with mode 0600
	Data   string       // folder of the record; one process at a time may have it
	Prefix string       // of the record's keys, such as "/zhiyun/gray/"
	Logger *slog.Logger // nil: off
}

// Part is what a daemon does besides keeping its record.
type Part struct {
	Run     func(ctx context.Context) error // ends when ctx does
	Handler http.Handler                    // of the API
}

// grace is how long calls of the API may go on after the end.
const grace = 2 * time.Second

// Run opens the record, has part made over it, and works until ctx ends, when it returns nil, or until something
// fails.
func Run(ctx context.Context, cfg Config, part func(store.Store) (Part, error)) (err error) {
	member, err := etcdstore.Embedded(etcdstore.EmbeddedConfig{Dir: cfg.Data, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	if err := member.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, member.Close()) }()
	p, err := part(etcdstore.New(member.Client(), cfg.Prefix))
	if err != nil {
		return err
	}
	listener, err := listen(cfg.Socket)
	if err != nil {
		return err
	}
	defer os.Remove(cfg.Socket)
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return p.Run(inner) })
	group.Go(func() error { return transport.NewServer(p.Handler).Serve(inner, listener, grace) })
	group.Go(func() error {
		select {
		case <-inner.Done():
			return nil
		case <-member.Failed():
			return fmt.Errorf("the disk under %s has failed or is full; free it and start again", cfg.Data)
		}
	})
	return group.Wait()
}

// listen opens a unix socket. It is made in a folder that only this user can enter and then moved to its place, so
// that nobody else can connect before its mode is set. A socket on which nobody listens is replaced.
func listen(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("another process serves %s; stop it or choose another path", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("%s exists and is no socket; remove it or choose another path", path)
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".sock")
	if err != nil {
		return nil, fmt.Errorf("make the socket %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make the socket %s (a path has at most about 80 bytes): %w", path, err)
	}
	listener.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(made, 0o600), os.Rename(made, path)); err != nil {
		listener.Close()
		return nil, fmt.Errorf("make the socket %s: %w", path, err)
	}
	return listener, nil
}
