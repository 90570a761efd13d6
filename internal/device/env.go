package device

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/supervise"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// Env is what a tool works with: the device it runs on, the key it runs under, and whom it asks. A tool that
// does not need a part leaves it untouched.
type Env struct {
	// Root is the device's folder: nothing outside of it is read or written. Required, absolute, existing.
	Root string
	// Key makes a call one of a kind: the same key again changes nothing. Required but for process.scan.
	Key string
	// Device and Addr are the device's name and address, handed to scripts and processes.
	Device, Addr string
	// PortOffset is added to the ports that manifests name: the device shares its address with others.
	PortOffset int
	// Vars is what scripts and processes get in their environment beyond ZHIYUN_ROOT, ZHIYUN_DEVICE and
	// ZHIYUN_ADDR, as NAME=value.
	Vars []string
	// Blobs is where packages and files come from by digest.
	Blobs Blobs
	// Processes starts and stops what shall keep running.
	Processes Processes
	// Routes tells whether the device may call a service and reaches it.
	Routes Routes
	// MaxBlob bounds what is fetched, MaxUnpacked what a package may unpack to. Default: 1 GiB and 4 GiB.
	MaxBlob, MaxUnpacked int64
	// MaxRatio bounds how many bytes a package may unpack to for each of its own, beyond its first 64 MiB. Default: 250.
	MaxRatio int64
	// Logger gets what the tool does. Default: none.
	Logger *slog.Logger
}

// Blobs opens what a digest ("sha256:HEX") stands for. The reader's content is checked by the tool. An unknown
// digest is an *Error of code "blob.not_found".
type Blobs interface {
	Open(ctx context.Context, digest string) (io.ReadCloser, error)
}

// Processes is the agent's supervisor. Local makes one of a *supervise.Supervisor, Dial one over device.sock.
type Processes interface {
	Start(ctx context.Context, spec supervise.Spec) error
	Stop(ctx context.Context, name string, grace time.Duration) error
	Kick(ctx context.Context, name string) error
	List(ctx context.Context) ([]supervise.Process, error)
	Specs(ctx context.Context) ([]supervise.Spec, error)
	Log(ctx context.Context, name string, instance int) (string, error) // the end of its output
}

// Routes warms the route of a caller to a service: it returns when the device holds a route, and fails with an
// *Error of code "l5.denied" or "l5.no_instance" (or any other) if there is none.
type Routes interface {
	Warm(ctx context.Context, caller, service string) error
}

// EnvFrom reads what an agent hands to the tools it runs: ZHIYUN_ROOT, ZHIYUN_KEY, ZHIYUN_DEVICE, ZHIYUN_ADDR, ZHIYUN_PORT_OFFSET,
// ZHIYUN_AGENT (path of device.sock), ZHIYUN_SERVER, ZHIYUN_TOKEN_FILE and the files of transport.ClientFiles. Blobs, Processes and Routes are
// made when the variables for them are set. Close releases their connections.
func EnvFrom(getenv func(string) string) (env Env, closeEnv func(), err error) {
	env = Env{Root: getenv("ZHIYUN_ROOT"), Key: getenv("ZHIYUN_KEY"), Device: getenv("ZHIYUN_DEVICE"), Addr: getenv("ZHIYUN_ADDR")}
	if text := getenv("ZHIYUN_PORT_OFFSET"); text != "" {
		if env.PortOffset, err = strconv.Atoi(text); err != nil || env.PortOffset < 0 {
			return env, func() {}, fail("env.port_offset", "ZHIYUN_PORT_OFFSET is %q, not a number from 0", text)
		}
	}
	for _, name := range []string{"ZHIYUN_EXECUTION", "ZHIYUN_STEP", "ZHIYUN_L5", "ZHIYUN_SITE"} {
		if value := getenv(name); value != "" {
			env.Vars = append(env.Vars, name+"="+value)
		}
	}
	var closers []func()
	closeEnv = func() {
		for _, c := range closers {
			c()
		}
	}
	if socket := getenv("ZHIYUN_AGENT"); socket != "" {
		client, err := Dial(strings.TrimPrefix(socket, "unix://"))
		if err != nil {
			return env, closeEnv, err
		}
		closers = append(closers, client.Close)
		env.Processes, env.Routes = client, client
	}
	if server := getenv("ZHIYUN_SERVER"); server != "" {
		token := ""
		if path := getenv("ZHIYUN_TOKEN_FILE"); path != "" {
			text, err := os.ReadFile(path)
			if err != nil {
				return env, closeEnv, fail("env.token", "read ZHIYUN_TOKEN_FILE: %v", err)
			}
			token = strings.TrimSpace(string(text))
		}
		secure, err := transport.FilesFromEnv(getenv).TLS()
		if err != nil {
			return env, closeEnv, fail("env.tls", "%v", err)
		}
		blobs, err := NewHTTPBlobs(server, token, secure)
		if err != nil {
			return env, closeEnv, err
		}
		closers = append(closers, blobs.Close)
		env.Blobs = blobs
	}
	return env, closeEnv, nil
}

// check completes the defaults and tells what is missing.
func (e Env) check(keyed bool) (Env, error) {
	if !filepath.IsAbs(e.Root) {
		return e, fail("env.root", "root %q is not an absolute path; the agent hands it over in ZHIYUN_ROOT", e.Root)
	}
	if info, err := os.Stat(e.Root); err != nil || !info.IsDir() {
		return e, fail("env.root", "root %q is not a folder; make it, or start the agent, which does", e.Root)
	}
	if keyed && e.Key == "" {
		return e, fail("env.key", "no idempotency key; set ZHIYUN_KEY to any text that names this one call")
	}
	if e.MaxBlob == 0 {
		e.MaxBlob = 1 << 30
	}
	if e.MaxUnpacked == 0 {
		e.MaxUnpacked = 4 << 30
	}
	if e.Logger == nil {
		e.Logger = slog.New(slog.DiscardHandler)
	}
	return e, nil
}

// environment is what scripts and processes of the device see.
func (e Env) environment(extra map[string]string) []string {
	env := []string{"ZHIYUN_ROOT=" + e.Root, "ZHIYUN_DEVICE=" + e.Device, "ZHIYUN_ADDR=" + e.Addr}
	if e.PortOffset != 0 {
		env = append(env, "ZHIYUN_PORT_OFFSET="+strconv.Itoa(e.PortOffset))
	}
	env = append(env, e.Vars...)
	for _, name := range sortedKeys(extra) {
		env = append(env, name+"="+extra[name])
	}
	return env
}

// need fails if a part of the environment is absent.
func need(have bool, what, how string) error {
	if have {
		return nil
	}
	return fail("env.missing", "%s", fmt.Sprintf("no %s; %s", what, how))
}
