package supervise_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/internal/supervise"
)

var update = flag.Bool("update", false, "record the outcome of the scripts anew")

func TestMachineScripts(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range scripts {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got, err := supervise.Script(string(text))
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(path, ".txt") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Whatever happens in whatever order: no second process is started while one lives, nothing is started once it is
// to stop, and who does not stop when asked is killed when the grace is over.
func TestMachineKeepsItsPromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := supervise.NewMachine()
		now := time.Unix(0, 0)
		alive, spawning, stopping, killed := false, false, false, false
		var killBy time.Time
		step := func(event string, grace time.Duration) supervise.State {
			state, act := m.Step(now, event, grace)
			switch act {
			case "spawn":
				if alive || stopping {
					t.Fatalf("started while alive=%v stopping=%v", alive, stopping)
				}
				spawning = true
			case "term":
				if !alive {
					t.Fatal("asked nobody to stop")
				}
			case "kill":
				killed = stopping
			}
			return state
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
			switch event := rapid.SampledFrom([]string{"tick", "tick", "outcome", "ended", "stop", "gone", "kick"}).Draw(t, "event"); event {
			case "outcome":
				if spawning {
					spawning = false
					if alive = rapid.Bool().Draw(t, "starts"); alive {
						step("spawned", 0)
					} else {
						step("failed", 0)
					}
				}
			case "ended":
				if alive && !stopping {
					step("ended", 0)
					alive = false
				}
			case "gone":
				if alive && stopping {
					alive = false
					if state := step("gone", 0); state != supervise.Stopped {
						t.Fatal("gone, and", state)
					}
				}
			case "stop":
				if spawning {
					continue // the shell tells the outcome of a start before anything else
				}
				grace := time.Duration(rapid.IntRange(0, 9000).Draw(t, "grace")) * time.Millisecond
				if by := now.Add(grace); !stopping || by.Before(killBy) {
					killBy = by
				}
				stopping = true
				if state := step("stop", grace); state != supervise.Stopping && state != supervise.Stopped {
					t.Fatal("told to stop, and", state)
				}
			default:
				step(event, 0)
				if stopping && alive && event == "tick" && !now.Before(killBy) && !killed {
					t.Fatal("it outlives its grace")
				}
			}
		}
	})
}
