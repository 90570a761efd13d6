package device_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/device/devicetest"
)

func install(w *world, in device.PackageInstallIn) func(device.Env) (device.PackageInstallOut, error) {
	return func(env device.Env) (device.PackageInstallOut, error) {
		return device.PackageInstall(w.Context(), env, in)
	}
}

func cart(w *world, version string) device.PackageInstallIn {
	blob := devicetest.Gzip(w, devicetest.Tar(w,
		devicetest.Entry{Name: "./"},
		devicetest.Entry{Name: "bin/cart", Content: "#!/bin/sh\necho " + version, Mode: 0o755},
		devicetest.Entry{Name: "bin/link", Link: "cart"},
		devicetest.Entry{Name: "share/", Mode: 0o750},
		devicetest.Entry{Name: "share/words", Content: version},
	))
	return device.PackageInstallIn{Name: "shop.cart", Version: version, Digest: w.blobs.Put(blob)}
}

func TestPackageInstallAndUndo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.tree()
	out := twice(w, "k1", install(w, cart(w, "1.0")))
	if !out.Fetched || out.Files != 2 || out.Previous != "" || w.blobs.Opened() != 1 {
		t.Errorf("out: %+v, opened %d", out, w.blobs.Opened())
	}
	if got := w.read("pkg/shop.cart/current/share/words"); got != "1.0" {
		t.Errorf("current has %q", got)
	}
	first := w.tree()
	out = twice(w, "k2", install(w, cart(w, "2.0")))
	if !strings.HasPrefix(out.Previous, "1.0-") || w.read("pkg/shop.cart/current/share/words") != "2.0" {
		t.Errorf("out: %+v", out)
	}
	undone(w, "k2", first, func(env device.Env) (device.Undone, error) {
		return device.PackageRemove(w.Context(), env, device.PackageRemoveIn{PackageInstallIn: cart(w, "2.0"), Done: &out})
	})
	undone(w, "k1", before, func(env device.Env) (device.Undone, error) {
		return device.PackageRemove(w.Context(), env, device.PackageRemoveIn{})
	})
}

func TestPackageInstallFailsByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := cart(w, "1.0")
	try := func(name, want string, in device.PackageInstallIn) {
		t.Helper()
		wrong(w, name, want, install(w, in))
	}
	pack := func(entries ...devicetest.Entry) device.PackageInstallIn {
		return device.PackageInstallIn{Name: "p", Version: "1", Digest: w.blobs.Put(devicetest.Tar(w, entries...))}
	}
	try("absent", "blob.not_found", device.PackageInstallIn{Name: "p", Version: "1", Digest: "sha256:" + strings.Repeat("ab", 32)})
	try("digest", "input.invalid", device.PackageInstallIn{Name: "p", Version: "1", Digest: "md5:1"})
	try("name", "input.invalid", device.PackageInstallIn{Name: "../p", Version: "1", Digest: good.Digest})
	try("version", "input.invalid", device.PackageInstallIn{Name: "p", Version: "current", Digest: good.Digest})
	try("escape", "package.unsafe", pack(devicetest.Entry{Name: "../../etc/passwd", Content: "x"}))
	try("absolute", "package.unsafe", pack(devicetest.Entry{Name: "/etc/passwd", Content: "x"}))
	try("link out", "package.unsafe", pack(devicetest.Entry{Name: "a", Link: "../../../etc"}))
	try("absolute link", "package.unsafe", pack(devicetest.Entry{Name: "a", Link: "/etc/passwd"}))
	try("device", "package.unsafe", pack(devicetest.Entry{Name: "a", Type: tar.TypeBlock}))
	try("hard link", "package.unsafe", pack(devicetest.Entry{Name: "a", Type: tar.TypeLink, Link: "b"}))
	try("twice", "package.unsafe", pack(devicetest.Entry{Name: "a"}, devicetest.Entry{Name: "a"}))
	try("no tar", "package.damaged", device.PackageInstallIn{Name: "p", Version: "1", Digest: w.blobs.Put(bytes.Repeat([]byte("x"), 2000))})
	try("no gzip", "package.damaged", device.PackageInstallIn{Name: "p", Version: "1", Digest: w.blobs.Put([]byte{0x1f, 0x8b, 1})})
	wrong(w, "large blob", "blob.too_large", func(env device.Env) (device.PackageInstallOut, error) {
		env.MaxBlob = 10
		return device.PackageInstall(w.Context(), env, good)
	})
	wrong(w, "bomb", "package.too_large", func(env device.Env) (device.PackageInstallOut, error) {
		env.MaxUnpacked = 10
		return device.PackageInstall(w.Context(), env, good)
	})
	wrong(w, "cancelled", "tool.cancelled", func(env device.Env) (device.PackageInstallOut, error) {
		w.blobs.Break(context.Canceled)
		defer w.blobs.Break(nil)
		return device.PackageInstall(w.Context(), env, good)
	})
	w.blobs.Spoil(true)
	try("spoilt", "blob.digest", good)
	w.blobs.Spoil(false)
	if _, err := device.PackageInstall(t.Context(), device.Env{Root: w.root}, good); code(err) != "env.key" {
		t.Error("no key:", err)
	}
	if _, err := device.PackageInstall(t.Context(), device.Env{Root: w.root + "/no", Key: "k"}, good); code(err) != "env.root" {
		t.Error("no root:", err)
	}
}

func TestAKeyNamesOneCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	twice(w, "k", install(w, cart(w, "1.0")))
	if _, err := install(w, cart(w, "2.0"))(w.env("k")); code(err) != "key.reused" {
		t.Error("another input under the key:", err)
	}
}

// I3: a call that was killed half way is begun anew under its key, from what was there before it.
func TestAKilledCallIsPutBackFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("etc/a.conf", "old")
	before := w.tree()
	in := device.ConfigPushIn{Configs: []device.ConfigFile{{Path: "etc/a.conf", Content: "new"}, {Path: "etc/sub/b.conf", Content: "b"}}}
	push := func(env device.Env) (device.ConfigPushOut, error) { return device.ConfigPush(w.Context(), env, in) }
	restore := func(env device.Env) (device.Undone, error) {
		return device.ConfigRestore(w.Context(), env, device.ConfigRestoreIn{ConfigPushIn: in})
	}
	cutOff := func() { // what a kill in the middle of the second file leaves
		twice(w, "k", push)
		path := "var/zhiyun/undo/k/config.push/journal.json"
		text := w.read(path)
		cut := strings.Replace(text, `"done":true`, `"done":false`, 1)
		if cut == text {
			t.Fatal("no done in", text)
		}
		w.write(path, cut)
		w.write("etc/sub/.zhiyun-b.conf.new", "hal")
		w.try(os.Remove(filepath.Join(w.root, "etc/sub/b.conf")))
	}
	cutOff()
	if out, err := push(w.env("k")); err != nil || !out.Configs[0].Changed || w.read("etc/sub/b.conf") != "b" {
		t.Error("again:", out, err)
	}
	undone(w, "k", before, restore)
	cutOff()
	undone(w, "k", before, restore)
}

func TestPurgeTakesAwayAndCanBeUndone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	idle := w.tree()
	twice(w, "k1", install(w, cart(w, "1.0")))
	twice(w, "k2", func(env device.Env) (device.ConfigPushOut, error) {
		return device.ConfigPush(w.Context(), env, device.ConfigPushIn{Configs: []device.ConfigFile{{Path: "etc/cart/a", Content: "x"}}})
	})
	inService := w.tree()
	for _, key := range []string{"leave", "leave again"} {
		out := twice(w, key, func(env device.Env) (device.Undone, error) {
			return device.PackageRemove(w.Context(), env, device.PackageRemoveIn{PackageInstallIn: device.PackageInstallIn{Name: "shop.cart"}, Purge: true})
		})
		twice(w, key, func(env device.Env) (device.Undone, error) {
			return device.ConfigRestore(w.Context(), env, device.ConfigRestoreIn{
				ConfigPushIn: device.ConfigPushIn{Configs: []device.ConfigFile{{Path: "etc/cart/a"}}}, Purge: true})
		})
		if out.State != "removed" {
			t.Error(out)
		}
		w.same("purge", idle)
	}
	undone(w, "leave again", idle, func(env device.Env) (device.Undone, error) { return device.Restore(w.Context(), env) })
	undone(w, "leave", inService, func(env device.Env) (device.Undone, error) { return device.Restore(w.Context(), env) })
}

func TestErrorsMatchByCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := install(w, device.PackageInstallIn{Name: "p", Version: "1", Digest: "x"})(w.env("k"))
	if !errors.Is(err, &device.Error{Code: "input.invalid"}) || errors.Is(err, &device.Error{Code: "other"}) {
		t.Error(err)
	}
}

func FuzzPackage(f *testing.F) {
	f.Add(devicetest.Tar(f, devicetest.Entry{Name: "a/b", Content: "x"}, devicetest.Entry{Name: "a/c", Link: "b"}))
	f.Add(devicetest.Gzip(f, devicetest.Tar(f, devicetest.Entry{Name: "../x", Content: "x"})))
	f.Fuzz(func(t *testing.T, blob []byte) {
		outer := t.TempDir()
		root := filepath.Join(outer, "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		var blobs devicetest.Blobs
		env := device.Env{Root: root, Key: "k", Blobs: &blobs, MaxBlob: 1 << 20, MaxUnpacked: 1 << 20}
		_, err := device.PackageInstall(t.Context(), env, device.PackageInstallIn{Name: "p", Version: "1", Digest: blobs.Put(blob)})
		if entries, _ := os.ReadDir(outer); len(entries) != 1 {
			t.Errorf("something left the root: %v", entries)
		}
		if tree := devicetest.Tree(t, root); err != nil && strings.Contains(tree, "pkg") {
			t.Errorf("a failure left %s", tree)
		}
	})
}
