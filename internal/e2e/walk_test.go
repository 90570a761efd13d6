//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// blocks are the README's fenced blocks that are marked with a comment, "walk: NAME", by name.
func blocks(t *testing.T) map[string]string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, match := range regexp.MustCompile("(?s)<!-- walk: (\\S+) -->\n```\\w*\n(.*?)```").FindAllStringSubmatch(string(readme), -1) {
		found[match[1]] = match[2]
	}
	for _, name := range []string{"dev", "place", "hello.go", "hello.yaml", "commands"} {
		if found[name] == "" {
			t.Fatalf("README.md has no block that is marked walk: %s", name)
		}
	}
	return found
}

// TestE2EWalk does what the README tells a newcomer to do, word for word, in an empty home.
func TestE2EWalk(t *testing.T) {
	t.Parallel()
	walk := blocks(t)
	home, err := os.MkdirTemp("", "zw") // a short path: sockets stand below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	if err := os.Mkdir(filepath.Join(home, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(zhiyun, filepath.Join(home, "bin", "zhiyun")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	environment := []string{"HOME=" + home}
	for _, name := range []string{"PATH", "GOROOT", "GOCACHE", "TMPDIR"} {
		if value := os.Getenv(name); value != "" {
			environment = append(environment, name+"="+value)
		}
	}
	if cache, err := exec.Command("go", "env", "GOCACHE").Output(); err == nil {
		environment = append(environment, "GOCACHE="+strings.TrimSpace(string(cache))) // only the time of a build depends on it
	}

	build, dev, ok := strings.Cut(strings.TrimSpace(walk["dev"]), "\n")
	if !ok || build != "go build -o bin/zhiyun ./cmd/zhiyun" {
		t.Fatalf("the walk builds with %q; the binary under test was built by TestMain", build)
	}
	running(ctx, t, home, environment, dev)

	if err := os.Mkdir(filepath.Join(home, "files"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hello.go", "hello.yaml"} {
		if err := os.WriteFile(filepath.Join(home, "files", name), []byte(walk[name]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	script := walk["place"] + "cp ../files/* .\n" + walk["commands"]
	shell := exec.CommandContext(ctx, "bash", "-ex", "-c", script)
	shell.Dir, shell.Env = home, environment
	shell.WaitDelay = 5 * time.Second
	out, err := shell.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("the walk: %v", err)
	}
	text := string(out)
	for what, want := range map[string]string{
		"the flow ends well":           `execution\.done`,
		"both instances were called":   `(?s)127\.\d+\.1\.\d+:8777 +\d+ +0 .*127\.\d+\.1\.\d+:8777 +\d+ +0 `,
		"drift found what was removed": `d01/package/pkg/hello/\S+/bin/hello +hello +open`,
		"apply shows its plan":         `1 to create`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("%s: nothing matches %q", what, want)
		}
	}
	list := exec.CommandContext(ctx, zhiyun, "get", "devices", "-o", "json")
	list.Env = environment
	out, err = list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var devices []struct{ State, Module string }
	if err := json.Unmarshal(out, &devices); err != nil {
		t.Fatal(err)
	}
	states := make(map[string]int)
	for _, device := range devices {
		states[device.State]++
	}
	if states["in_service"] != 1 || states["idle"] != 3 {
		t.Errorf("devices %v, want 1 in service and 3 idle", states)
	}
}

// running starts zhiyun dev by the README's line, waits until it is ready, and ends it as Ctrl-C does.
func running(ctx context.Context, t *testing.T, home string, environment []string, line string) {
	t.Helper()
	words := strings.Fields(line)
	dev := exec.Command(filepath.Join(home, words[0]), words[1:]...)
	dev.Dir, dev.Env = home, environment
	out := &lines{seen: make(chan struct{})}
	dev.Stdout, dev.Stderr = out, out
	if err := dev.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- dev.Wait() }()
	t.Cleanup(func() {
		dev.Process.Signal(syscall.SIGINT)
		if err := <-ended; err != nil {
			t.Errorf("zhiyun dev ended with %v:\n%s", err, out)
		}
	})
	select {
	case <-out.seen:
	case err := <-ended:
		ended <- err
		t.Fatalf("zhiyun dev ended: %s", out)
	case <-ctx.Done():
		t.Fatalf("zhiyun dev is not ready:\n%s", out)
	}
}

// lines keeps what is printed, and says when there was a line "ready".
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
	seen chan struct{}
	once sync.Once
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	if bytes.Contains(l.text.Bytes(), []byte("ready:")) {
		l.once.Do(func() { close(l.seen) })
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
