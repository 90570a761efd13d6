package dispatch

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Devices that never come back, and attempts that have ended, leave nothing behind for longer than a day or two.
func TestDevicesThatNeverComeBackAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, err := New(Config{Grace: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		const days, devices = 30, 400
		most := 0
		for day := range days {
			for i := range devices {
				device := fmt.Sprintf("d%d.%d", day, i)
				call := flow.Call{ID: device + "/1", Device: device}
				if i%2 == 0 {
					d.Acknowledge(call)
				} else if got := d.Run(context.Background(), call); got.Error == nil || got.Error.Code != flow.CodeDeviceLost {
					t.Fatalf("run on a device that is away: %+v", got)
				}
			}
			d.mu.Lock()
			if len(d.watches)+len(d.calls) > 0 {
				t.Errorf("%d devices are watched for attempts that have ended, %d attempts are known", len(d.watches), len(d.calls))
			}
			most = max(most, len(d.away))
			d.mu.Unlock()
			time.Sleep(remembered)
		}
		if most > 3*devices {
			t.Errorf("%d devices are remembered, of %d that were seen in a day", most, devices)
		}
	})
}

// Attempts of one device share what they watch, and it goes with the last of them.
func TestAttemptsShareWhatTheyWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, err := New(Config{Grace: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		done := make(chan flow.Result)
		for i := range 3 {
			go func() { done <- d.Run(ctx, flow.Call{ID: fmt.Sprint(i), Device: "d"}) }() // ends with ctx; waited for below
		}
		synctest.Wait()
		d.mu.Lock()
		if len(d.watches) != 1 || d.watches["d"].attempts != 3 {
			t.Errorf("watches: %v; want one, of three attempts", d.watches)
		}
		d.mu.Unlock()
		cancel(flow.ErrClosed)
		for range 3 {
			if got := <-done; got.Error == nil || got.Error.Code != flow.CodeLost {
				t.Errorf("the engine stopped: %+v", got)
			}
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if len(d.watches) > 0 {
			t.Errorf("%d devices are still watched", len(d.watches))
		}
	})
}
