package device_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/device"
)

func TestFileSyncAndRestore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("data/geo/old", "old")
	w.write("data/geo/same", "same")
	w.write("data/geo/stale", "stale")
	w.try(os.Symlink("old", filepath.Join(w.root, "data/geo/alias")))
	before := w.tree()
	in := device.FileSyncIn{
		Files: []device.File{
			{Path: "data/geo/old", Digest: w.blobs.Put([]byte("new"))},
			{Path: "data/geo/same", Digest: w.blobs.Put([]byte("same")), Mode: "0640"},
			{Path: "data/geo/deep/er/file", Digest: w.blobs.Put([]byte("deep")), Mode: "0755"},
		},
		Mirror: []string{"data/geo"},
	}
	out := twice(w, "k", func(env device.Env) (device.FileSyncOut, error) { return device.FileSync(w.Context(), env, in) })
	want := device.FileSyncOut{Written: []string{"data/geo/old", "data/geo/deep/er/file"},
		Removed: []string{"data/geo/alias", "data/geo/stale"}, Unchanged: 1, Bytes: 7}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Error(diff)
	}
	if info, err := os.Stat(filepath.Join(w.root, "data/geo/deep/er/file")); err != nil || info.Mode().Perm() != 0o755 {
		t.Error(info, err)
	}
	undone(w, "k", before, func(env device.Env) (device.Undone, error) {
		return device.FileRestore(w.Context(), env, device.FileRestoreIn{FileSyncIn: in, Done: &out})
	})
}

func TestFileSyncFailsByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("data/keep", "keep")
	w.try(os.Symlink(t.TempDir(), filepath.Join(w.root, "data/out")))
	good := w.blobs.Put([]byte("x"))
	try := func(name, want string, files ...device.File) {
		t.Helper()
		wrong(w, name, want, func(env device.Env) (device.FileSyncOut, error) {
			return device.FileSync(w.Context(), env, device.FileSyncIn{Files: files})
		})
	}
	first := device.File{Path: "data/first", Digest: good}
	try("absent", "blob.not_found", first, device.File{Path: "data/keep", Digest: "sha256:0000000000000000000000000000000000000000000000000000000000000000"})
	try("outside", "path.outside", first, device.File{Path: "../x", Digest: good})
	try("absolute", "path.outside", device.File{Path: "/etc/passwd", Digest: good})
	try("own", "path.outside", device.File{Path: "var/zhiyun/undo/x", Digest: good})
	try("through a link", "path.outside", first, device.File{Path: "data/out/x", Digest: good})
	try("folder", "path.is_dir", first, device.File{Path: "data", Digest: good})
	try("mode", "input.invalid", device.File{Path: "data/x", Digest: good, Mode: "4755"})
	try("twice", "input.invalid", first, first)
	w.blobs.Spoil(true)
	try("spoilt", "blob.digest", first)
}

func TestConfigPushAndRestore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("etc/cart.yaml", "rate: 1")
	before := w.tree()
	in := device.ConfigPushIn{Configs: []device.ConfigFile{
		{Path: "etc/cart.yaml", Content: "rate: 2", Mode: "0600"},
		{Path: "etc/more/raw", Content: "AP8=", Encoding: "base64"},
	}}
	out := twice(w, "k", func(env device.Env) (device.ConfigPushOut, error) { return device.ConfigPush(w.Context(), env, in) })
	if w.read("etc/cart.yaml") != "rate: 2" || w.read("etc/more/raw") != "\x00\xff" || len(out.Configs) != 2 || !out.Configs[0].Changed {
		t.Errorf("out: %+v", out)
	}
	undone(w, "k", before, func(env device.Env) (device.Undone, error) {
		return device.ConfigRestore(w.Context(), env, device.ConfigRestoreIn{ConfigPushIn: in, Done: &out})
	})
}

// A file that holds secrets comes by its digest alone.
func TestConfigPushFetchesWhatTheInputDoesNotHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.tree()
	in := device.ConfigPushIn{Configs: []device.ConfigFile{
		{Path: "etc/secret", Digest: w.blobs.Put([]byte("password: x")), Mode: "0600"},
		{Path: "etc/empty", Digest: w.blobs.Put(nil)},
	}}
	out := twice(w, "k", func(env device.Env) (device.ConfigPushOut, error) { return device.ConfigPush(w.Context(), env, in) })
	if w.read("etc/secret") != "password: x" || w.read("etc/empty") != "" {
		t.Errorf("out: %+v", out)
	}
	undone(w, "k", before, func(env device.Env) (device.Undone, error) {
		return device.ConfigRestore(w.Context(), env, device.ConfigRestoreIn{ConfigPushIn: in, Done: &out})
	})
}

func TestConfigPushFailsByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("etc/cart.yaml", "rate: 1")
	try := func(name, want string, second device.ConfigFile) {
		t.Helper()
		wrong(w, name, want, func(env device.Env) (device.ConfigPushOut, error) {
			return device.ConfigPush(w.Context(), env, device.ConfigPushIn{Configs: []device.ConfigFile{{Path: "etc/cart.yaml", Content: "2"}, second}})
		})
	}
	try("outside", "path.outside", device.ConfigFile{Path: "../x"})
	try("folder", "path.is_dir", device.ConfigFile{Path: "etc"})
	try("digest", "config.digest", device.ConfigFile{Path: "etc/x", Content: "x", Digest: "sha256:0000000000000000000000000000000000000000000000000000000000000000"})
	try("encoding", "input.invalid", device.ConfigFile{Path: "etc/x", Encoding: "rot13"})
	try("base64", "input.invalid", device.ConfigFile{Path: "etc/x", Content: "!", Encoding: "base64"})
}
