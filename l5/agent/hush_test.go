package agent_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/agent"
)

// What is refused ten thousand times is said a few times, with the number; another thing is said at once; and who makes up
// ever new things fills neither the log nor the memory.
func TestHush(t *testing.T) {
	t.Parallel()
	var h agent.Hush
	now, said, kept := time.Unix(0, 0), 0, 0
	for range 10_000 {
		now = now.Add(10 * time.Millisecond)
		if more, ok := h.Say(now, "route 1000/web"); ok {
			said, kept = said+1, kept+more
		}
	}
	if said != 10 || kept+said < 8_900 {
		t.Errorf("in 100 s it was said %d times, with %d more", said, kept)
	}
	if _, ok := h.Say(now, "route 1001/cart"); !ok {
		t.Error("another one was not said")
	}
	said = 0
	for i := range 100_000 {
		if _, ok := h.Say(now, strconv.Itoa(i)); ok {
			said++
		}
	}
	if said > 1100 {
		t.Errorf("%d made up things were said", said)
	}
	if _, ok := h.Say(now.Add(time.Minute), "new"); !ok {
		t.Error("after a minute nothing is said any more")
	}
}
