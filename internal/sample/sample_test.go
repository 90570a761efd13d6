package sample_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/sample"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-addr" {
		os.Exit(sample.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// serve runs a server with settings; stop drains it.
func serve(t *testing.T, settings string) (base string, stop func() error) {
	t.Helper()
	root := t.TempDir()
	path := filepath.Join(root, filepath.FromSlash(sample.SettingsPath))
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(settings), 0o600)); err != nil {
		t.Fatal(err)
	}
	server, err := sample.New(sample.Config{Addr: "127.0.0.1:0", Root: root, Version: "1.2"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	addr := server.Addr(t.Context())
	return "http://" + addr.String(), stop
}

func get(url string) (int, string, error) {
	response, err := http.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	base, _ := serve(t, "rate: 1000\ngreeting: servus\n")
	for path, want := range map[string]string{"/": "servus\n", "/healthz": "ok\n"} {
		if status, text, err := get(base + path); status != 200 || text != want || err != nil {
			t.Error(path, status, text, err)
		}
	}
	status, text, err := get(base + "/version")
	var version struct {
		Version  string
		Settings sample.Settings
	}
	if err := errors.Join(err, json.Unmarshal([]byte(text), &version)); err != nil || status != 200 || version.Version != "1.2" || version.Settings.Rate != 1000 {
		t.Error(status, text, err)
	}
	if status, _, err := get(base + "/absent"); status != 404 || err != nil {
		t.Error(status, err)
	}
}

func TestOverloadIsRefused(t *testing.T) {
	t.Parallel()
	base, _ := serve(t, "rate: 2\nworkers: 1\nqueue: 2\n") // half a second each
	results := make(chan int, 10)
	for range 10 {
		go func() {
			status, _, err := get(base + "/")
			if err != nil {
				t.Error(err)
			}
			results <- status
		}()
	}
	counts := map[int]int{}
	for range 10 {
		counts[<-results]++
	}
	// One is served, two wait, and while that takes 1.5 s at most a few more find room.
	if counts[200] < 3 || counts[503] < 1 || counts[200]+counts[503] != 10 {
		t.Error(counts)
	}
}

func TestABadVersionFailsItsShare(t *testing.T) {
	t.Parallel()
	base, _ := serve(t, "rate: 10000\nfail: 0.25\n")
	failed := 0
	for range 40 {
		if status, _, err := get(base + "/"); err != nil {
			t.Fatal(err)
		} else if status == 500 {
			failed++
		}
	}
	if failed != 10 {
		t.Errorf("%d of 40 failed", failed)
	}
}

func TestDrainFinishesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	base, stop := serve(t, "rate: 5\nworkers: 1\n") // 200 ms each
	type result struct {
		status int
		err    error
	}
	done := make(chan result, 1)
	go func() {
		status, _, err := get(base + "/")
		done <- result{status, err}
	}()
	for inFlight := false; !inFlight; {
		_, text, err := get(base + "/version")
		if err != nil {
			t.Fatal(err)
		}
		inFlight = strings.Contains(text, `"admitted":1,`)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if r := <-done; r.status != 200 || r.err != nil {
		t.Error(r)
	}
}

func TestMainDrainsOnSIGTERM(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-addr", "127.0.0.1:0", "-root", t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 1000)
	n, _ := out.Read(line)
	if !strings.Contains(string(line[:n]), "serving") {
		t.Errorf("it says %q", line[:n])
	}
	cmd.Process.Signal(syscall.SIGTERM)
	rest, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil || !strings.Contains(string(rest), "drained") {
		t.Error(err, string(rest))
	}
	var said bytes.Buffer
	if exit := sample.Main([]string{"-addr", "nowhere"}, func(string) string { return "" }, io.Discard, &said); exit != 1 || !strings.Contains(said.String(), "nowhere") {
		t.Error(exit, said.String())
	}
	if exit := sample.Main([]string{"-what"}, func(string) string { return "" }, io.Discard, &said); exit != 2 {
		t.Error(exit)
	}
}

func TestSettingsFaultsAllAtOnce(t *testing.T) {
	t.Parallel()
	_, err := sample.ParseSettings([]byte("rate: -1\nworkers: -1\nfail: 2\ndrain: -1s\nqueue: -1"))
	for _, want := range []string{"rate", "workers", "fail", "drain", "queue"} {
		if !errors.Is(err, sample.ErrSettings) || !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in %v", want, err)
		}
	}
	if _, err := sample.ParseSettings([]byte("rat: 1")); !errors.Is(err, sample.ErrSettings) {
		t.Error("unknown field:", err)
	}
	if s, err := sample.ParseSettings([]byte(sample.DefaultSettings)); err != nil || s.Rate != 100 || s.Queue != 25 {
		t.Error(s, err)
	}
}

func FuzzSettings(f *testing.F) {
	f.Add([]byte(sample.DefaultSettings))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := sample.ParseSettings(text); err == nil && !(s.Rate > 0 && s.Workers > 0 && s.Queue > 0) {
			t.Errorf("%+v", s)
		}
	})
}

func TestPackIsTheSameForTheSame(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 511, 512, 513, 100_000} {
		exe := filepath.Join(t.TempDir(), "exe")
		if err := os.WriteFile(exe, bytes.Repeat([]byte("x"), size), 0o700); err != nil {
			t.Fatal(err)
		}
		var packs [2][]byte
		for i := range packs {
			pack, err := sample.Pack(exe)
			if err != nil {
				t.Fatal(err)
			}
			if packs[i], err = io.ReadAll(pack); err != nil {
				t.Fatal(err)
			}
			pack.Close()
		}
		if !bytes.Equal(packs[0], packs[1]) {
			t.Error("two packs differ")
		}
		var got []string
		for archive := tar.NewReader(bytes.NewReader(packs[0])); ; {
			header, err := archive.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(size, err)
			}
			got = append(got, fmt.Sprintf("%o %s", header.Mode, header.Name))
			if content, err := io.ReadAll(archive); err != nil || header.Name == "bin/sample" && len(content) != size {
				t.Error(size, len(content), err)
			}
		}
		if diff := cmp.Diff([]string{"755 bin/sample", "755 scripts/init", "755 scripts/undo", "644 etc/sample.yaml"}, got); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := sample.Pack("/absent"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := sample.Pack(t.TempDir()); err == nil {
		t.Error("a folder was packed")
	}
}
