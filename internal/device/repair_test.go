package device_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/device"
)

func sum(text string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))) }

func TestRepair(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := cart(w, "1.0")
	out := twice(w, "k", install(w, in))
	w.write("etc/cart.yaml", "rate: 1")
	w.write("data/geo", "geo")
	w.blobs.Put([]byte("geo"))
	before := w.tree()
	words := out.Path + "/share/words"
	for _, wanted := range []device.RepairIn{
		{Path: "etc/cart.yaml", Digest: sum("rate: 1"), Content: []byte("rate: 1"), Mode: "0640"},
		{Path: "data/geo", Digest: sum("geo"), Mode: "0640"},
		{Path: words, Digest: sum("1.0"), Package: in.Digest, Mode: "0644"},
		{Path: "data/intruder", Remove: true},
	} {
		repair := func(want bool) {
			t.Helper()
			changed, err := device.Repair(t.Context(), w.env(""), wanted)
			if err != nil || changed != want {
				t.Errorf("%s: changed %v, %v", wanted.Path, changed, err)
			}
			w.same("repair of "+wanted.Path, before)
		}
		full := filepath.Join(w.root, wanted.Path)
		repair(false)
		w.write(wanted.Path, "tampered")
		repair(true)
		if wanted.Remove {
			continue
		}
		w.try(os.Chmod(full, 0o777))
		repair(true)
		w.try(os.Remove(full))
		repair(true)
		w.try(os.Remove(full))
		w.try(os.Symlink("/etc/passwd", full))
		repair(true)
		w.try(os.Remove(full))
		w.try(os.MkdirAll(filepath.Join(full, "sub"), 0o755))
		repair(true)
	}
}

// A link is made again whatever stands in its place, in one motion.
func TestRepairOfALink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	out := twice(w, "k", install(w, cart(w, "1.0")))
	current := filepath.Dir(out.Path) + "/current"
	full := filepath.Join(w.root, current)
	before := w.tree()
	repair := func(want bool) {
		t.Helper()
		changed, err := device.Repair(t.Context(), w.env(""), device.RepairIn{Path: current, Link: filepath.Base(out.Path)})
		if err != nil || changed != want {
			t.Errorf("changed %v, %v", changed, err)
		}
		w.same("repair of the link", before)
	}
	repair(false)
	w.try(os.Remove(full))
	repair(true)
	w.try(os.Remove(full))
	w.try(os.Symlink("/etc", full))
	repair(true)
	w.try(os.Remove(full))
	w.write(current, "a file")
	repair(true)
	w.try(os.Remove(full))
	w.try(os.MkdirAll(filepath.Join(full, "sub"), 0o755))
	repair(true)
	for _, target := range []string{"../../../etc", "/etc"} {
		if _, err := device.Repair(t.Context(), w.env(""), device.RepairIn{Path: current, Link: target}); code(err) != "path.outside" {
			t.Errorf("a link to %s: %v", target, err)
		}
	}
	w.same("links that lead outside", before)
}

func TestRepairFailsByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := cart(w, "1.0")
	for want, wanted := range map[string]device.RepairIn{
		"path.outside":         {Path: "../x", Digest: sum("x")},
		"input.invalid":        {Path: "etc/x", Digest: "x"},
		"blob.not_found":       {Path: "etc/x", Digest: sum("x")},
		"blob.digest":          {Path: "etc/x", Digest: sum("x"), Content: []byte("y")},
		"package.no_such_file": {Path: "pkg/cart/1/none", Digest: sum("x"), Package: in.Digest},
	} {
		if _, err := device.Repair(t.Context(), w.env(""), wanted); code(err) != want {
			t.Errorf("%+v: %v, want %s", wanted, err, want)
		}
	}
}
