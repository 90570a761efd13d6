package supervise_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/supervise"
)

// Run a process, look at it, stop it.
func Example() {
	dir, _ := os.MkdirTemp("", "supervise")
	defer os.RemoveAll(dir)
	s, err := supervise.New(supervise.Config{Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()

	err = s.Start(ctx, supervise.Spec{Name: "clock", Command: []string{"/bin/sleep", "60"}})
	fmt.Println("started:", err)
	for _, p := range s.List() {
		fmt.Println(p.Name, p.Instance, p.State)
	}
	fmt.Println("stopped:", s.Stop(ctx, "clock", time.Second), len(s.List()))
	cancel()
	fmt.Println("ended:", <-ended)
	// Output:
	// started: <nil>
	// clock 0 running
	// stopped: <nil> 0
	// ended: <nil>
}
