package records_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/records"
)

func signalless() (context.Context, context.CancelFunc) {
	return context.WithCancel(context.Background())
}

// Fold what callers report, and read the load with its gaps.
func ExampleDB_Load() {
	dir, err := os.MkdirTemp("", "records")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	now := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	db, err := records.Open(filepath.Join(dir, "records.db"), records.Config{Now: func() time.Time { return now }, Beat: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- db.Run(ctx) }()
	report := func() {
		err := db.AddOutcomes(ctx, []records.OutcomeDelta{{Caller: "shop.web", Service: "shop.cart", Addr: "10.0.0.1:8080", Requests: 300, Failures: 3}})
		if err != nil {
			log.Fatal(err)
		}
	}
	report()
	now = now.Add(10 * time.Second)
	report()
	report()
	now = now.Add(10 * time.Second)
	samples, err := db.Load(ctx, "shop.cart", now.Add(-30*time.Second), now)
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range samples {
		fmt.Println(s.At.Format(time.TimeOnly), s.Status, s.Rate)
	}
	stop()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// 03:03:50 gap 0
	// 03:04:00 complete 30
	// 03:04:10 complete 60
}
