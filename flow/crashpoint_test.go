package flow_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/internal/crashfs"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
)

// world is what lives on when the machine dies: the effects of tools, and what people were told.
type world struct {
	mu    sync.Mutex     // guards what follows
	runs  map[string]int // of each idempotency key
	told  map[string]flow.Event
	id    string // of the execution, once its start was acknowledged
	again int    // runs of a step whose end had been told
}

func (w *world) effect(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs[key]++
	if w.told["done "+key].Seq > 0 {
		w.again++
	}
}

func (w *world) tell(e flow.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told[fmt.Sprint(e.Execution, " ", e.Seq)] = e
	if e.Kind == flow.EventAttemptDone {
		w.told[fmt.Sprintf("done %s/%s/%d", e.Execution, e.Step, e.Item)] = e
	}
}

func newWorld() *world { return &world{runs: map[string]int{}, told: map[string]flow.Event{}} }

func newDisk(t *testing.T) *crashfs.Disk {
	t.Helper()
	disk, err := crashfs.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(disk.Close)
	return disk
}

// life runs the flow of 23 steps on the disk, until it ends or the disk fails. It reports whether it ended.
func (w *world) life(t *testing.T, disk *crashfs.Disk, path string) bool {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?vfs="+disk.Name()+"&"+sqlitestore.Options+"&_pragma=wal_autocheckpoint(80)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	store := sqlitestore.New(db)
	defer store.Close()
	tools := flow.NewTools()
	flow.Func(tools, "step", func(ctx context.Context, in struct {
		WF   string `json:"wf"`
		From string `json:"from"`
		Step int    `json:"step"`
	}) (out struct {
		Text string `json:"text"`
	}, err error) {
		call, _ := flow.CallFrom(ctx)
		w.effect(call.Key)
		out.Text = in.WF
		return out, nil
	}, flow.WithEffect(flow.Keyed))
	engine, err := flow.New(flow.Config{Store: store, Tools: tools, OnEvent: w.tell})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Save(t.Context(), []byte(chain(23))); err != nil {
		return false
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { // ends with ctx or the store; waited for below
		defer cancel()
		ended <- engine.Run(ctx)
	}()
	done := false
	if id, err := engine.Start(ctx, "chain", map[string]any{"wf": "w"}, flow.Key("once")); err == nil {
		w.mu.Lock()
		if w.id != "" && w.id != id {
			t.Errorf("the start was acknowledged as %s and is now %s", w.id, id)
		}
		w.id = id
		w.mu.Unlock()
		x, err := engine.Wait(ctx, id)
		done = err == nil && x.State == flow.Done
	}
	cancel()
	err = <-ended
	return done && err == nil
}

// verify holds what is stored to what was told.
func (w *world) verify(t *testing.T, disk *crashfs.Disk, path string) error {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?vfs="+disk.Name()+"&"+sqlitestore.Options)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	store := sqlitestore.New(db)
	defer store.Close()
	if found, err := flow.Check(t.Context(), store); err != nil || len(found) > 0 {
		return fmt.Errorf("check: %v, %w", found, err)
	}
	if w.id == "" {
		return nil
	}
	records, err := store.History(t.Context(), w.id, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]flow.Event{}
	for _, record := range records {
		events, err := flow.DecodeEvents(w.id, record)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			stored[fmt.Sprint(e.Execution, " ", e.Seq)] = e
		}
	}
	for key, e := range w.told {
		if got := stored[key]; key[:4] != "done" && got.String() != e.String() {
			return fmt.Errorf("event %s was told as %q and is stored as %q", key, e, got)
		}
	}
	return nil
}

// The machine dies at every write and every sync of a flow of 23 steps, by an error of the disk and by a power cut that takes what was not synced, or half of it. After
// each: the store is sound, nothing that was told is lost, the execution ends, and no step whose end was told runs again.
func TestEveryCrashPoint(t *testing.T) {
	t.Parallel()
	clean := newDisk(t)
	if !newWorld().life(t, clean, filepath.Join(t.TempDir(), "flow.db")) {
		t.Fatal("the flow does not end on a disk without faults")
	}
	points, stride := clean.Ops(), 1
	if testing.Short() || slowed {
		stride = 7
	}
	random := rand.New(rand.NewPCG(3, 4))
	doubt, crashes := 0, 0
	for point := 1; point <= points; point += stride {
		for _, how := range []string{"error", "power cut", "half a power cut"} {
			w, disk, path := newWorld(), newDisk(t), filepath.Join(t.TempDir(), "flow.db")
			disk.FailAt(point)
			if w.life(t, disk, path) {
				continue // batches differ from run to run: this one needed fewer writes
			}
			crashes++
			var err error
			switch how {
			case "power cut":
				err = disk.PowerCut(nil)
			case "half a power cut":
				err = disk.PowerCut(func() bool { return random.IntN(2) == 0 })
			}
			if err != nil {
				t.Fatal(err)
			}
			disk.Mend()
			if err := w.verify(t, disk, path); err != nil {
				t.Fatalf("%s at %d: %v", how, point, err)
			}
			if !w.life(t, disk, path) {
				t.Fatalf("%s at %d: the execution did not end", how, point)
			}
			if err := w.verify(t, disk, path); err != nil {
				t.Fatalf("%s at %d, and went on: %v", how, point, err)
			}
			for key, n := range w.runs {
				doubt += n - 1
				if n > 2 {
					t.Errorf("%s at %d: %s ran %d times", how, point, key, n)
				}
			}
			if len(w.runs) != 23 || w.again > 0 {
				t.Errorf("%s at %d: %d steps had an effect, %d ran again although their end had been told", how, point, len(w.runs), w.again)
			}
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d points, %d crashes, %d steps in doubt run again", points, crashes, doubt)
}

// A disk that says it has synced and has not is a planted bug that the check must find.
func TestCrashPointsFindALyingDisk(t *testing.T) {
	t.Parallel()
	w, disk, path := newWorld(), newDisk(t), filepath.Join(t.TempDir(), "flow.db")
	disk.LieAfter(60)
	if !w.life(t, disk, path) {
		t.Fatal("the flow does not end on a disk that lies")
	}
	if err := disk.PowerCut(nil); err != nil {
		t.Fatal(err)
	}
	if err := w.verify(t, disk, path); err == nil {
		t.Fatal("the check finds nothing missing")
	} else {
		t.Log("found:", err)
	}
}
