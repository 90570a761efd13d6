package etcdstore_test

import (
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

const mounts = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
31 22 8:17 / /var/lib rw shared:2 master:1 - xfs /dev/sdb1 rw
32 22 8:33 / /var/library rw - xfs /dev/sdc1 rw
33 22 0:40 / /mnt/a\040b rw - tmpfs small\040disk rw
34 22 0:41 / /mnt/over rw - ext4 /dev/sdd1 rw
35 22 0:42 / /mnt/over rw - tmpfs tmpfs rw
broken line
`

func TestMountOf(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/var/lib/zhiyun": "/dev/sdb1 (xfs, mounted at /var/lib)",
		"/var/library":    "/dev/sdc1 (xfs, mounted at /var/library)",
		"/var/libx":       "/dev/sda1 (ext4, mounted at /)",
		"/mnt/a b/etcd":   "small disk (tmpfs, mounted at /mnt/a b)",
		"/mnt/over/x":     "tmpfs (tmpfs, mounted at /mnt/over)", // the later mount hides the earlier
	} {
		if got := etcdstore.MountOf(path, mounts); got != want {
			t.Errorf("%s is on %s, want %s", path, got, want)
		}
	}
	if got := etcdstore.MountOf("/x", ""); got != "its file system" {
		t.Errorf("without a table: %s", got)
	}
}

func FuzzMountOf(f *testing.F) {
	f.Add("/var/lib/zhiyun", mounts)
	f.Add("", " - \n - - -\n")
	f.Fuzz(func(t *testing.T, path, table string) {
		if etcdstore.MountOf(path, table) == "" {
			t.Error("the disk has no name at all")
		}
	})
}
