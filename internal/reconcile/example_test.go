package reconcile_test

import (
	"context"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/reconcile"
)

func Example() {
	ctx, stop := context.WithCancel(context.Background())
	want, have := 3, 0
	loop, err := reconcile.New(reconcile.Config{Name: "fleet", Interval: time.Millisecond, Pass: func(context.Context) error {
		if have == want {
			stop()
			return nil
		}
		have++
		fmt.Println("started one, have", have)
		return nil
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("end:", loop.Run(ctx))
	// Output:
	// started one, have 1
	// started one, have 2
	// started one, have 3
	// end: <nil>
}
