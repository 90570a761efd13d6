//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/guard"
)

// guardedEnv marks the test binary that runs below a guard: however it ends, the guard ends what it started.
const guardedEnv = "ZHIYUN_E2E_GUARDED"

// The binaries under test, built once.
var zhiyun, sampled string

// The test binary plays the guard, the trap in a tool's place, and the tests.
func TestMain(m *testing.M) {
	switch {
	case guard.Is(os.Args):
		os.Exit(guard.Main(os.Args))
	case isTrap(os.Args):
		os.Exit(runTrap(os.Args[2:]))
	case os.Getenv(guardedEnv) == "":
		os.Exit(belowGuard())
	}
	dir, err := os.MkdirTemp("", "zy-bin")
	if err == nil {
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// belowGuard runs the tests in a process of their own.
func belowGuard() int {
	exe, err := os.Executable()
	if err == nil {
		err = os.Setenv(guardedEnv, "1")
	}
	var g *guard.Guarded
	if err == nil {
		g, err = guard.Start(context.Background(), exe, os.Args[1:]...)
	}
	if err == nil {
		err = g.Wait()
	}
	if err != nil {
		if !errors.Is(err, guard.ErrEnded) {
			fmt.Fprintln(os.Stderr, err)
		}
		return 1
	}
	return 0
}

func build(dir string) error {
	zhiyun, sampled = filepath.Join(dir, "zhiyun"), filepath.Join(dir, "sampled")
	for path, source := range map[string]string{zhiyun: "../../cmd/zhiyun", sampled: "./sampled"} {
		if out, err := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, source).CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", source, err, out)
		}
	}
	return nil
}
