package supervise_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/supervise"
)

// A process is known by who has started it: itself, or through its parents; also by a supervisor that has taken it over.
func TestProcessesAreKnownByTheirOrigin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, stop := run(t, supervise.Config{Dir: dir})
	family := spec("web", "family")
	family.Module = "shop.web"
	if err := s.Start(t.Context(), family); err != nil {
		t.Fatal(err)
	}
	child := 0
	eventually(t, "the child is there", func() bool {
		text, _ := os.ReadFile(s.LogPath("web", 0))
		_, err := fmt.Sscanf(string(text), "child %d\n", &child)
		return err == nil
	})
	own := one(t, s).PID
	check := func(s *supervise.Supervisor) {
		t.Helper()
		for what, pid := range map[string]int{"the process": own, "its child": child} {
			if got, err := s.Of(t.Context(), pid); err != nil || got.Module != "shop.web" || got.Name != "web" {
				t.Errorf("%s is of %+v: %v", what, got, err)
			}
		}
		for what, pid := range map[string]int{"the test": os.Getpid(), "its parent": os.Getppid(), "init": 1, "none": 0, "no process": 1 << 30} {
			if got, err := s.Of(t.Context(), pid); !errors.Is(err, supervise.ErrUnknown) {
				t.Errorf("%s is of %+v: %v", what, got, err)
			}
		}
	}
	check(s)
	stop()
	s, _ = run(t, supervise.Config{Dir: dir})
	check(s)
}
