package lockfile_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/lockfile"
)

func TestSecondIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lockfile.Take(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockfile.Take(path); !errors.Is(err, lockfile.ErrHeld) {
		t.Fatalf("a second lock: %v, want ErrHeld", err)
	}
	waiting := make(chan error, 1)
	go func() {
		second, err := lockfile.Take(path)
		if err == nil {
			err = second.Close()
		}
		waiting <- err
	}()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Fatalf("a lock that is given up meanwhile: %v", err)
	}
}

func TestPathThatIsNone(t *testing.T) {
	t.Parallel()
	if _, err := lockfile.Take(filepath.Join(t.TempDir(), "none", "lock")); err == nil {
		t.Fatal("want an error")
	}
}
