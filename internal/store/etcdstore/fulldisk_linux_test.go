package etcdstore_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The process ends naming the disk; after space is freed, a restart shows every acknowledged write.
func TestFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a disk of 150 MB")
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("zhiyun-test-disk", disk, "tmpfs", 0, "size=150m"); err != nil {
		if os.Getenv("ZHIYUN_REQUIRE") == "1" {
			t.Fatalf("mount a small disk: %v", err)
		}
		t.Skipf("cannot mount a small disk (%v); run as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(disk, "etcd")
	w, acknowledged := startWriter(t, dir, 200<<10), make(acks)
	for w.read(acknowledged) {
	}
	err := w.command.Wait()
	if err == nil || len(acknowledged) == 0 {
		t.Fatalf("the process ended with %v after %d writes, want a failure after some", err, len(acknowledged))
	}
	said := w.stderr.String()
	t.Logf("it said: %s", said)
	for _, part := range []string{dir, disk, "zhiyun-test-disk", "no space left on device", "free some space"} {
		if !strings.Contains(said, part) {
			t.Errorf("its last words do not name %s", part)
		}
	}
	if err := syscall.Mount("zhiyun-test-disk", disk, "tmpfs", syscall.MS_REMOUNT, "size=600m"); err != nil {
		t.Fatal(err)
	}
	acknowledged.verify(t, dir)
}
