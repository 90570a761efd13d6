package flow_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
)

// TestMain lets the test binary be the engine's process of TestKill, a server of the tests of takeover, and a tool.
func TestMain(m *testing.M) {
	if kind := os.Getenv("ZHIYUN_TEST_TOOL"); kind != "" {
		os.Exit(toolProcess(kind))
	}
	if dsn := os.Getenv("ZHIYUN_TEST_SERVER"); dsn != "" {
		if err := serverProcess(dsn); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv("ZHIYUN_TEST_ENGINE"); dir != "" {
		if err := crashProcess(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv("ZHIYUN_TEST_EXPANSION"); dir != "" {
		if err := expansionProcess(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const (
	crashFlows = 12
	crashSteps = 23
)

// crashFlow mixes Go functions and processes.
func crashFlow() string {
	var b strings.Builder
	b.WriteString("flow: crash\nparams: {n: int}\nsteps:\n")
	for i := range crashSteps {
		tool := "note"
		if i%6 == 5 {
			tool = "note.process"
		}
		fmt.Fprintf(&b, "  - {name: s%d, tool: %s, with: {n: \"${params.n}\", step: %d}}\n", i, tool, i)
	}
	return b.String()
}

// crashProcess runs the flows to their end, started once by key, or goes on with them. Each tool appends its key to a file: that is its effect.
func crashProcess(dir string) error {
	store, err := sqlitestore.Open(filepath.Join(dir, "flow.db"))
	if err != nil {
		return err
	}
	defer store.Close()
	effects := filepath.Join(dir, "effects")
	tools := flow.NewTools()
	flow.Func(tools, "note", func(ctx context.Context, in struct {
		N    int `json:"n"`
		Step int `json:"step"`
	}) (struct{}, error) {
		call, _ := flow.CallFrom(ctx)
		return struct{}{}, note(effects, call.Key)
	}, flow.WithEffect(flow.Keyed))
	tools.Exec(flow.Manifest{
		Name: "note.process", Command: []string{"/bin/sh", "-c", `echo "$ZHIYUN_KEY" >> ` + effects}, Effect: flow.Keyed,
		Input: json.RawMessage(`{"type": "object"}`),
	})
	engine, err := flow.New(flow.Config{Store: store, Tools: tools})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	if _, err := engine.Save(ctx, []byte(crashFlow())); err != nil {
		return err
	}
	var ids []string
	for i := range crashFlows {
		id, err := engine.Start(ctx, "crash", map[string]any{"n": i}, flow.Key(fmt.Sprint(i)))
		if err != nil {
			return err
		}
		fmt.Println("started", i, id)
		ids = append(ids, id)
	}
	for _, id := range ids {
		if x, err := engine.Wait(ctx, id); err != nil || x.State != flow.Done {
			return fmt.Errorf("execution %s is %s: %w", id, x.State, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		return err
	}
	fmt.Println("finished")
	return nil
}

func note(path, key string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(key + "\n")
	return errors.Join(err, file.Close())
}

// TestKill kills the engine's process with SIGKILL at random points until the flows are done. What was acknowledged is there, everything
// finishes, no completed step is run again, and what is run again keeps its key.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	acknowledged := map[string]string{}
	kills, finished := 0, false
	for round := 0; !finished; round++ {
		if round == 60 {
			t.Fatal("not finished after 60 rounds")
		}
		after := time.Duration(20+random.IntN(180)) * time.Millisecond
		if round > 12 {
			after = time.Minute // enough: let it finish
		}
		finished = crashRound(t, dir, after, acknowledged)
		if !finished {
			kills++
		}
		verifyDone(t, dir, finished)
	}
	if len(acknowledged) != crashFlows {
		t.Errorf("%d flows were acknowledged, want %d", len(acknowledged), crashFlows)
	}
	data, err := os.ReadFile(filepath.Join(dir, "effects"))
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]int{}
	for line := range strings.Lines(string(data)) {
		keys[line]++
	}
	again := 0
	for _, n := range keys {
		again += n - 1
	}
	if want := crashFlows * crashSteps; len(keys) != want {
		t.Errorf("effects under %d keys, want %d", len(keys), want)
	}
	// Each kill can put at most one attempt of each execution in doubt.
	if again > kills*crashFlows {
		t.Errorf("%d attempts were run again after %d kills of %d flows", again, kills, crashFlows)
	}
	t.Logf("%d kills, %d attempts in doubt run again", kills, again)
}

// crashRound runs the process and kills it after a while, unless it finishes before.
func crashRound(t *testing.T, dir string, after time.Duration, acknowledged map[string]string) bool {
	t.Helper()
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(), "ZHIYUN_TEST_ENGINE="+dir)
	out, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { process.Process.Kill() })
	defer timer.Stop()
	finished := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		words := strings.Fields(lines.Text())
		switch words[0] {
		case "started":
			if before := acknowledged[words[1]]; before != "" && before != words[2] {
				t.Errorf("flow %s was acknowledged as %s and is now %s", words[1], before, words[2])
			}
			acknowledged[words[1]] = words[2]
		case "finished":
			finished = true
		default:
			t.Fatal(lines.Text())
		}
	}
	err = process.Wait()
	if killed := !timer.Stop(); finished && err != nil && !killed {
		t.Fatal(err)
	}
	return finished
}

// verifyDone checks the whole store, and that steps that are done were not begun again.
func verifyDone(t *testing.T, dir string, finished bool) {
	t.Helper()
	store, err := sqlitestore.Open(filepath.Join(dir, "flow.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	found, err := flow.Check(t.Context(), store)
	if err != nil || len(found) > 0 {
		t.Fatalf("check: %v, %v", found, err)
	}
	rows, err := store.List(t.Context(), flow.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if finished && row.State != flow.Done {
			t.Errorf("%s is %s", row.ID, row.State)
		}
		records, err := store.History(t.Context(), row.ID, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		done := map[string]bool{}
		for _, record := range records {
			events, err := flow.DecodeEvents(row.ID, record)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if e.Kind == flow.EventAttemptStarted && done[e.Step] {
					t.Errorf("%s: step %s is done and begun again", row.ID, e.Step)
				}
				done[e.Step] = done[e.Step] || e.Kind == flow.EventAttemptDone
			}
		}
	}
}
