package records_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/records"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("RECORDS_WRITER"); path != "" {
		writer(path)
		return
	}
	os.Exit(m.Run())
}

// writer adds outcomes, one acknowledged line of output each, until it is killed.
func writer(path string) {
	db, err := records.Open(path, records.Config{Bucket: time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := signalless()
	defer cancel()
	go func() { _ = db.Run(ctx) }()
	for i := 1; ; i++ {
		err := db.AddReport(ctx, "w", int64(i), []records.OutcomeDelta{{Service: "s", Addr: "a:1", Requests: 1}})
		if err == nil {
			_, err = db.AddChange(ctx, records.Change{Key: fmt.Sprint(i), Actor: "w", Summary: "n"})
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(i)
	}
}

// I9: after kill -9, everything that was acknowledged is there, and nothing twice.
func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "r.db")
	acknowledged := 0
	for round := range 3 {
		command := exec.Command(os.Args[0], "-test.run", "^$")
		command.Env = append(os.Environ(), "RECORDS_WRITER="+path)
		out, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			var i int
			if _, err := fmt.Sscan(lines.Text(), &i); err != nil {
				t.Errorf("writer: %s", lines.Text())
				break
			}
			acknowledged = max(acknowledged, i)
			if n == 20*(round+1) {
				if err := command.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = command.Wait() // it was killed
	}
	db, err := records.Open(path, records.Config{Bucket: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	changes, err := db.Changes(t.Context(), records.ChangeQuery{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	// Each round begins at 1 again, so the last round is the one that can have gone furthest; of the one write that
	// was under way at each kill, nothing was acknowledged.
	if n := len(changes); n < acknowledged || n > acknowledged+1 {
		t.Errorf("%d changes acknowledged, %d found", acknowledged, n)
	}
	window, err := db.Outcomes(t.Context(), "s", time.Now().Add(-2*time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var requests int64
	for _, b := range window.Buckets {
		requests += b.Requests
	}
	if requests < int64(acknowledged) || requests > int64(acknowledged)+2 {
		t.Errorf("%d reports acknowledged, %d counted", acknowledged, requests)
	}
	if window.Complete || len(window.Gaps) == 0 {
		t.Errorf("a killed process leaves a gap: %+v", window)
	}
}
