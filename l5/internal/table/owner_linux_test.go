package table_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/zhiyun-ops/zhiyun/l5/internal/table"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// What one user of the device may call, another cannot read. Giving files away takes a right that not everybody has; without
// it nothing is written.
func TestOwner(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "l5table")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	const owner, other = 64_123, 64_124
	folder, err := table.Make(dir, owner)
	if err != nil {
		t.Fatal(err)
	}
	err = table.Write(folder, owner, files(t, entry("a", []string{"c"}, &l5pb.Instance{Addr: "10.0.0.7:80"})))
	if os.Geteuid() != 0 {
		if left, _ := filepath.Glob(filepath.Join(folder, "*.routes")); err == nil || len(left) != 0 {
			t.Errorf("files given away without the right to: %v, %v", left, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, fmt.Sprintf("%02x.routes", table.SegmentOf("a")))
	for _, test := range []struct {
		uid uint32
		ok  bool
	}{{owner, true}, {other, false}} {
		read := exec.Command("cat", file)
		read.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: test.uid, Gid: test.uid}}
		if output, err := read.Output(); (err == nil) != test.ok || test.ok && len(output) == 0 {
			t.Errorf("user %d reads %d bytes: %v", test.uid, len(output), err)
		}
	}
}

// A user who changes what it was given deceives itself alone: the agent does not take it back.
func TestTheAgentKnowsItsOwnFilesAgain(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	const owner = 64_125
	folder, err := table.Make(t.TempDir(), owner)
	if err != nil {
		t.Fatal(err)
	}
	load := func() (callers []string, err error) {
		err = table.Load(folder, owner, func(e table.Entry) { callers = append(callers, e.Callers...) })
		return callers, err
	}
	instance := &l5pb.Instance{Addr: "10.0.0.7:80"}
	if err := table.Write(folder, owner, files(t, entry("a", []string{"c"}, instance), entry("b", []string{"c"}, instance))); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(folder, owner, map[int][]byte{table.SegmentOf("b"): nil}); err != nil {
		t.Fatal(err)
	}
	if callers, err := load(); err != nil || !slices.Equal(callers, []string{"c"}) {
		t.Fatalf("as it was written: %v, %v", callers, err)
	}
	for segment, forged := range files(t, entry("a", []string{"mallory"}, instance), entry("b", []string{"mallory"}, instance)) {
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%02x.routes", segment)), forged, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if callers, err := load(); !errors.Is(err, table.ErrDamaged) || len(callers) != 0 {
		t.Errorf("after its owner changed it: %v, %v", callers, err)
	}
}
