package flow_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
)

// The expansion: 23 steps in six stages, those on devices for each of them.
var expansionSteps = []struct {
	name    string
	devices bool
	tool    string // look: pure, act: keyed, add: asked by a probe
}{
	{"params", false, "look"}, {"mute", false, "act"}, {"query", false, "look"}, {"names", false, "look"},
	{"manifest", false, "look"}, {"permissions", false, "act"}, {"acquire", true, "act"}, {"silence", true, "act"},
	{"install", true, "act"}, {"files", true, "act"}, {"config_params", true, "look"}, {"config", true, "act"}, {"init", true, "act"}, {"caller_join", true, "act"}, {"start", true, "act"},
	{"scan", true, "look"}, {"report", false, "act"}, {"grants", false, "look"},
	{"test", true, "act"},
	{"vip_add", true, "add"}, {"online", true, "act"}, {"unsilence", true, "act"}, {"unmute", false, "act"},
}

const expansionDevices = 4

func expansionFlow() string {
	var b strings.Builder
	b.WriteString("flow: expansion\nparams: {module: string, devices: list<string>}\nsteps:\n")
	for _, s := range expansionSteps {
		fmt.Fprintf(&b, "  - name: %s\n    tool: %s\n    retry: {attempts: 12, backoff: 2ms, max: 20ms}\n", s.name, s.tool)
		if s.devices {
			fmt.Fprintf(&b, "    each: params.devices\n    parallel: 2\n    with: {step: %s, of: \"${item}\"}\n", s.name)
		} else {
			fmt.Fprintf(&b, "    with: {step: %s, of: \"${params.module}\"}\n", s.name)
		}
	}
	return b.String()
}

// expansionWorld is what the tools change: a file of effects, one line for each, which a tool looks through before it adds its own.
type expansionWorld struct {
	mu   sync.Mutex // guards the file within this process
	path string
}

type expansionIn struct {
	Step string `json:"step"`
	Of   string `json:"of"`
}

var errUnlucky = &flow.Error{Code: "unlucky", Message: "one call in twenty fails"}

// act has its effect once per key, and fails now and then, before or after.
func (w *expansionWorld) act(ctx context.Context, in expansionIn) (struct{}, error) {
	dice := rand.IntN(100)
	if dice < 3 {
		return struct{}{}, errUnlucky
	}
	call, _ := flow.CallFrom(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	there, err := w.there(call.Key)
	if err == nil && !there {
		err = note(w.path, in.Step+" "+in.Of+" "+call.Key)
	}
	if err == nil && dice < 5 {
		err = errUnlucky // though it has had its effect
	}
	return struct{}{}, err
}

func (w *expansionWorld) there(key string) (bool, error) {
	data, err := os.ReadFile(w.path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return strings.Contains(string(data), " "+key+"\n"), err
}

// expansionProcess runs the expansion of some modules to its end, or goes on with it.
func expansionProcess(dir string) error {
	store, err := sqlitestore.Open(filepath.Join(dir, "flow.db"))
	if err != nil {
		return err
	}
	defer store.Close()
	world := &expansionWorld{path: filepath.Join(dir, "effects")}
	tools := flow.NewTools()
	flow.Func(tools, "look", func(context.Context, expansionIn) (struct{}, error) {
		if rand.IntN(100) < 5 {
			return struct{}{}, errUnlucky
		}
		return struct{}{}, nil
	}, flow.WithEffect(flow.Pure))
	flow.Func(tools, "act", world.act, flow.WithEffect(flow.Keyed))
	flow.Func(tools, "added", func(ctx context.Context, in expansionIn) (struct {
		Done bool `json:"done"`
	}, error) {
		call, _ := flow.CallFrom(ctx)
		world.mu.Lock()
		defer world.mu.Unlock()
		done, err := world.there(call.Key)
		return struct {
			Done bool `json:"done"`
		}{done}, err
	}, flow.WithEffect(flow.Pure))
	flow.Func(tools, "add", func(ctx context.Context, in expansionIn) (struct{}, error) {
		if rand.IntN(100) < 5 {
			return struct{}{}, errUnlucky
		}
		call, _ := flow.CallFrom(ctx) // it does not look whether it has been there: the engine asks the probe
		err := note(world.path, in.Step+" "+in.Of+" "+call.Key)
		if os.Getenv("ZHIYUN_TEST_EXPANSION_CUT") == in.Step { // its effect is there, and nobody will hear of it
			fmt.Println("effect")
			select {}
		}
		return struct{}{}, err
	}, flow.WithEffect(flow.Probe), flow.WithProbe("added"))
	most, err := strconv.Atoi(os.Getenv("ZHIYUN_TEST_EXPANSION_EVENTS")) // then it waits to be killed; 0: it finishes
	if err != nil {
		return err
	}
	var events atomic.Int64
	engine, err := flow.New(flow.Config{Store: store, Tools: tools, OnEvent: func(e flow.Event) {
		fmt.Println("event", e.Kind)
		if n := events.Add(1); most > 0 && n >= int64(most) {
			select {}
		}
	}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }() // ends with ctx; waited for below
	if _, err := engine.Save(ctx, []byte(expansionFlow())); err != nil {
		return err
	}
	var ids []string
	for _, module := range []string{"shop.web", "shop.cart"} {
		devices := make([]string, expansionDevices)
		for i := range devices {
			devices[i] = fmt.Sprintf("%s-d%d", module, i)
		}
		id, err := engine.Start(ctx, "expansion", map[string]any{"module": module, "devices": devices}, flow.Key(module))
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	for _, id := range ids {
		if x, err := engine.Wait(ctx, id); err != nil || x.State != flow.Done {
			return fmt.Errorf("execution %s is %s: %v, %w", id, x.State, x.Error, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		return err
	}
	fmt.Println("finished")
	return nil
}

// The 23-step expansion with one tool call in twenty failing and the engine's process killed three times in the middle, and once more when a tool that is
// run again at no price has just had its effect: it ends with nobody asked, and every device was acquired, initialised, tested and put on line exactly once.
func TestExpansion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const kills = 4
	for round := range kills + 1 {
		after, cut := 0, "" // events; 0: let it finish
		switch {
		case round == kills-1:
			cut = "vip_add"
		case round < kills:
			after = 25 + random.IntN(55) // what comes before that has more
		}
		if finished := expansionRound(t, dir, after, cut); finished != (round == kills) {
			t.Fatalf("round %d: finished %t", round, finished)
		}
		expansionStored(t, dir)
	}
	data, err := os.ReadFile(filepath.Join(dir, "effects"))
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		times[words[0]+" "+words[1]]++
	}
	for _, module := range []string{"shop.web", "shop.cart"} {
		for _, s := range expansionSteps {
			of := []string{module}
			if s.devices {
				of = of[:0]
				for i := range expansionDevices {
					of = append(of, fmt.Sprintf("%s-d%d", module, i))
				}
			}
			for _, one := range of {
				if n := times[s.name+" "+one]; s.tool != "look" && n != 1 {
					t.Errorf("%s of %s happened %d times", s.name, one, n)
				}
			}
		}
	}
}

// expansionRound runs the process and kills it after so many events, or with the effect of a step.
func expansionRound(t *testing.T, dir string, after int, cut string) (finished bool) {
	t.Helper()
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(), "ZHIYUN_TEST_EXPANSION="+dir, "ZHIYUN_TEST_EXPANSION_EVENTS="+strconv.Itoa(after), "ZHIYUN_TEST_EXPANSION_CUT="+cut)
	process.Stderr = os.Stderr
	out, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(2*time.Minute, func() { process.Process.Kill() })
	defer timer.Stop()
	events := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		switch word, _, _ := strings.Cut(lines.Text(), " "); word {
		case "event":
			if events++; events == after {
				if err := process.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		case "effect": // of several devices at once
			if err := process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
		case "finished":
			finished = true
		default:
			t.Fatal(lines.Text())
		}
	}
	if err := process.Wait(); finished && err != nil {
		t.Fatal(err)
	}
	return finished
}

// expansionStored checks the whole store, that nobody was asked, and that all that was cut off passed in doubt.
func expansionStored(t *testing.T, dir string) {
	t.Helper()
	store, err := sqlitestore.Open(filepath.Join(dir, "flow.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if found, err := flow.Check(t.Context(), store); err != nil || len(found) > 0 {
		t.Fatalf("check: %v, %v", found, err)
	}
	rows, err := store.List(t.Context(), flow.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		records, err := store.History(t.Context(), row.ID, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		running := map[string]bool{}
		for _, record := range records {
			events, err := flow.DecodeEvents(row.ID, record)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				spot := fmt.Sprintf("%s/%d", e.Step, e.Item)
				switch e.Kind {
				case flow.EventStuck, flow.EventAttemptHeld, flow.EventCompensating:
					t.Errorf("%s: %s", row.ID, e)
				case flow.EventAttemptStarted:
					if running[spot] {
						t.Errorf("%s: %s begins again, and was not in doubt", row.ID, spot)
					}
					running[spot] = true
				case flow.EventAttemptDone, flow.EventAttemptFailed, flow.EventAttemptDoubt:
					running[spot] = false
				}
			}
		}
	}
	if len(rows) != 2 || slices.ContainsFunc(rows, func(r flow.Row) bool { return r.Flow != "expansion" }) {
		t.Errorf("%d executions", len(rows))
	}
}
