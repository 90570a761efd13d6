package device_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/device/devicetest"
	"github.com/zhiyun-ops/zhiyun/internal/sample"
	"github.com/zhiyun-ops/zhiyun/internal/supervise"
)

// The test binary plays the processes of a package: in another folder it is known by its arguments.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if len(os.Args) > 2 {
			listener, err := net.Listen("tcp", os.Args[2])
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			defer listener.Close()
		}
		time.Sleep(time.Hour)
	}
	if len(os.Args) > 2 && os.Args[1] == "tool" {
		os.Exit(killedTool(os.Args[2]))
	}
	if len(os.Args) > 1 && os.Args[1] == "sample" {
		os.Exit(sample.Main(os.Args[2:], os.Getenv, os.Stdout, os.Stderr))
	}
	if len(os.Args) > 1 && os.Args[1] == "crash" {
		fmt.Println("no config, no service")
		os.Exit(4)
	}
	os.Exit(m.Run())
}

// world is a device with an agent over its own socket.
type world struct {
	*testing.T
	root   string
	addr   string // of the device
	blobs  *devicetest.Blobs
	routes *devicetest.Routes
	agent  *device.Client

	socket    string
	stopAgent func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, root: t.TempDir(), addr: addrtest.Host(), blobs: &devicetest.Blobs{}, routes: &devicetest.Routes{}}
	for _, dir := range []string{"etc", "data", "pkg"} {
		w.try(os.Mkdir(filepath.Join(w.root, dir), 0o755))
	}
	return w
}

// withAgent starts a real supervisor behind a real socket, for the whole test.
func (w *world) withAgent() *world {
	w.Helper()
	sockets, err := os.MkdirTemp("", "zy") // a socket's path must be short
	w.try(err)
	w.socket = filepath.Join(sockets, "device.sock")
	w.agent, err = device.Dial(w.socket)
	w.try(err)
	w.startAgent()
	w.Cleanup(func() {
		specs, err := w.agent.Specs(context.Background())
		if err != nil {
			w.Error(err)
		}
		for _, spec := range specs {
			if err := w.agent.Stop(context.Background(), spec.Name, 0); err != nil {
				w.Error(err)
			}
		}
		w.agent.Close()
		w.stopAgent()
		os.RemoveAll(sockets)
	})
	return w
}

func (w *world) startAgent() {
	w.Helper()
	s, err := supervise.New(supervise.Config{Dir: filepath.Join(w.root, "var/zhiyun/supervise"), Poll: 10 * time.Millisecond})
	w.try(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- s.Run(ctx) }()
	go func() {
		done <- device.Serve(ctx, device.ServeConfig{Path: w.socket, Supervisor: s, Routes: w.routes})
	}()
	w.stopAgent = func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				w.Error(err)
			}
		}
	}
	w.eventually("the agent answers", func() bool { _, err := w.agent.List(w.Context()); return err == nil })
	info, err := os.Stat(w.socket)
	w.try(err)
	if info.Mode().Perm() != 0o600 {
		w.Errorf("socket mode %v", info.Mode())
	}
}

func (w *world) env(key string) device.Env {
	env := device.Env{Root: w.root, Key: key, Device: "web-7", Addr: w.addr, Blobs: w.blobs, Routes: w.routes}
	if w.agent != nil {
		env.Processes = w.agent
	}
	return env
}

func (w *world) try(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) write(path, content string) {
	w.Helper()
	full := filepath.Join(w.root, path)
	w.try(os.MkdirAll(filepath.Dir(full), 0o755))
	w.try(os.WriteFile(full, []byte(content), 0o640))
}

func (w *world) read(path string) string {
	w.Helper()
	content, err := os.ReadFile(filepath.Join(w.root, path))
	w.try(err)
	return string(content)
}

func (w *world) tree() string { w.Helper(); return devicetest.Tree(w, w.root) }

// same fails if the tree is not as before.
func (w *world) same(when, before string) {
	w.Helper()
	if diff := cmp.Diff(before, w.tree()); diff != "" {
		w.Errorf("%s: %s", when, diff)
	}
}

func (w *world) eventually(what string, ok func() bool) {
	w.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			w.Fatal("never happened:", what)
		}
	}
}

// code is the name under which a call failed.
func code(err error) string {
	var failure *device.Error
	if errors.As(err, &failure) {
		return failure.Code
	}
	return fmt.Sprint(err)
}

// wrong checks that a call fails by name and leaves nothing behind.
func wrong[Out any](w *world, name, want string, call func(device.Env) (Out, error)) {
	w.Helper()
	before := w.tree()
	if _, err := call(w.env("wrong-" + name)); code(err) != want {
		w.Errorf("%s: code %s, want %s (%v)", name, code(err), want, err)
	}
	w.same(name+" left something behind", before)
	if journals, _ := filepath.Glob(filepath.Join(w.root, "var/zhiyun/undo/*")); len(journals) > 0 {
		w.Errorf("%s left a journal: %v", name, journals)
	}
}

// twice calls with one key twice and checks that the second changes nothing and tells the same.
func twice[Out any](w *world, key string, call func(device.Env) (Out, error)) Out {
	w.Helper()
	first, err := call(w.env(key))
	w.try(err)
	text, err := json.Marshal(first)
	w.try(err)
	w.try(validate(device.SchemaOf[Out](), string(text)))
	after := w.tree()
	second, err := call(w.env(key))
	w.try(err)
	if diff := cmp.Diff(first, second); diff != "" {
		w.Errorf("the second call told something else: %s", diff)
	}
	w.same("the second call changed something", after)
	return first
}

// undone undoes twice and checks that the tree is as it was.
func undone(w *world, key, before string, undo func(device.Env) (device.Undone, error)) {
	w.Helper()
	for range 2 {
		out, err := undo(w.env(key))
		w.try(err)
		if out.State != "as_before" {
			w.Errorf("undo tells %q", out.State)
		}
		w.same("undo", before)
	}
}

// validate holds a document to a schema.
func validate(schema json.RawMessage, document string) error {
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return err
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("tool.json", parsed); err != nil {
		return err
	}
	compiled, err := compiler.Compile("tool.json")
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(document))
	if err != nil {
		return err
	}
	return compiled.Validate(value)
}
