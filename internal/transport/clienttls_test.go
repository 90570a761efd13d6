package transport_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/certs"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

func TestClientFiles(t *testing.T) {
	t.Parallel()
	if config, err := (transport.ClientFiles{}).TLS(); config != nil || err != nil {
		t.Errorf("no files: %v, %v", config, err)
	}
	for name, files := range map[string]transport.ClientFiles{
		"no such CA":         {CA: "/nonexistent"},
		"not a CA":           {CA: "clienttls.go"},
		"half a certificate": {Cert: "clienttls.go"},
		"not a certificate":  {Cert: "clienttls.go", Key: "clienttls.go"},
	} {
		if _, err := files.TLS(); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	files := transport.ClientFiles{CA: "a", Key: "k"}
	env := map[string]string{transport.EnvCA: "a", transport.EnvKey: "k"}
	if diff := cmp.Diff(files, transport.FilesFromEnv(func(name string) string { return env[name] })); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"ZHIYUN_TLS_CA=a", "ZHIYUN_TLS_KEY=k"}, files.Env()); diff != "" {
		t.Error(diff)
	}
}

// A certificate and its key in one file are read at once: whoever replaces it never leaves a reader with halves of two.
func TestClientFilesReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var pairs [][]byte
	for _, sub := range []string{"a", "b"} {
		files, err := certs.Make(filepath.Join(dir, sub), []string{"127.0.0.1"}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		var both []byte
		for _, file := range files[1:3] {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			both = append(both, content...)
		}
		pairs = append(pairs, both)
	}
	path, next := filepath.Join(dir, "device.pem"), filepath.Join(dir, "next.pem")
	replace := func(i int) error {
		if err := os.WriteFile(next, pairs[i%len(pairs)], 0o600); err != nil {
			return err
		}
		return os.Rename(next, path)
	}
	if err := replace(0); err != nil {
		t.Fatal(err)
	}
	config, err := transport.ClientFiles{Cert: path, Key: path}.TLS()
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { // ends with stop; waited for below
		for i := 1; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := replace(i); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 500 {
		if _, err := config.GetClientCertificate(nil); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
