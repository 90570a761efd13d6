package agent_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// court is a jury with a clock, and instances that answer probes or not.
type court struct {
	jury   agent.Jury
	now    time.Time
	dead   map[string]bool
	silent map[string]bool // probes get no answer
	probed map[string]int
}

func newCourt(n int) *court {
	c := &court{
		jury: agent.NewJury(balance.Config{}), now: time.Unix(1, 0), dead: make(map[string]bool), silent: make(map[string]bool), probed: make(map[string]int),
	}
	var members balance.Members
	for i := range n {
		members = append(members, balance.Member{Addr: fmt.Sprint("h:", i), Weight: 100, Gray: 1})
	}
	c.answer(c.jury.Replace(c.now, members))
	return c
}

func (c *court) answer(probes []string) {
	for len(probes) > 0 {
		addr := probes[0]
		probes = probes[1:]
		c.probed[addr]++
		if c.silent[addr] {
			continue
		}
		var err error
		if c.dead[addr] {
			err = errors.New("connection refused")
		}
		probes = append(probes, c.jury.Probed(c.now, addr, err)...)
	}
}

func (c *court) doubt(process int, addr string, kind l5pb.Doubt_Kind, ejected bool) {
	c.answer(c.jury.Doubt(c.now, process, &l5pb.Doubt{Addr: addr, Kind: kind, Ejected: ejected, Row: 1, Text: "it failed"}))
}

// answered takes back that a process waits.
func (c *court) answered(process int, addr string) {
	c.answer(c.jury.Doubt(c.now, process, &l5pb.Doubt{Addr: addr, Kind: stalled}))
}

// doubtOf is of a process of a party that is one of several.
func (c *court) doubtOf(process int, party, addr string, kind l5pb.Doubt_Kind, ejected bool) {
	c.answer(c.jury.DoubtOf(c.now, process, party, 5, &l5pb.Doubt{Addr: addr, Kind: kind, Ejected: ejected, Row: 1, Text: "it failed"}))
}

func (c *court) sleep(d time.Duration) {
	for end := c.now.Add(d); c.now.Before(end); {
		c.now = c.now.Add(50 * time.Millisecond)
		c.answer(c.jury.Tick(c.now))
	}
}

func (c *court) downs() (out []string) {
	for _, d := range c.jury.Downs() {
		out = append(out, d.GetAddr())
	}
	return out
}

func (c *court) want(t *testing.T, what string, want ...string) {
	t.Helper()
	if got := c.downs(); !slices.Equal(got, want) {
		t.Errorf("%s: down are %v, want %v", what, got, want)
	}
}

const (
	refusedKind = l5pb.Doubt_KIND_REFUSED
	timedOut    = l5pb.Doubt_KIND_TIMED_OUT
	failedKind  = l5pb.Doubt_KIND_FAILED
	stalled     = l5pb.Doubt_KIND_STALLED
)

func TestJury(t *testing.T) {
	t.Parallel()
	t.Run("what a process says is cut short", func(t *testing.T) {
		t.Parallel()
		c := newCourt(4)
		long := strings.Repeat("é", 1<<20)
		for process := range 3 {
			c.answer(c.jury.Doubt(c.now, process, &l5pb.Doubt{Addr: "h:1", Kind: stalled, Row: 1, Text: "x" + long}))
		}
		c.want(t, "after three that wait", "h:1")
		if reason := c.jury.Downs()[0].GetReason(); len(reason) > 1<<10 || !utf8.ValidString(reason) {
			t.Errorf("the reason has %d bytes: %.100q", len(reason), reason)
		}
	})
	t.Run("a dead instance goes at the first doubt and comes back by probes", func(t *testing.T) {
		t.Parallel()
		c := newCourt(4)
		c.dead["h:1"] = true
		c.doubt(1, "h:1", refusedKind, false)
		c.want(t, "after one failure of one process", "h:1")
		if reason := c.jury.Downs()[0].GetReason(); !strings.Contains(reason, "connection refused") {
			t.Errorf("reason: %s", reason)
		}
		c.sleep(20 * time.Second)
		c.want(t, "while it is dead", "h:1")
		if n := c.probed["h:1"]; n < 4 || n > 6 { // at 0, 1, 3, 7, 15 s
			t.Errorf("%d probes in 20 s", n)
		}
		delete(c.dead, "h:1")
		c.sleep(18 * time.Second)
		c.want(t, "healed")
		if c.jury.Idle(c.now) {
			t.Error("it has forgotten the ejections already")
		}
		c.sleep(2 * time.Minute)
		if !c.jury.Idle(c.now) {
			t.Error("it never ends")
		}
	})
	t.Run("many processes of one user and module that lie harm nobody else", func(t *testing.T) {
		t.Parallel()
		c := newCourt(4)
		for i := range 1000 {
			c.doubtOf(i, "1000/shop.web", "h:1", refusedKind, true)
			c.doubtOf(i, "1000/shop.web", "h:2", timedOut, true)
			c.sleep(50 * time.Millisecond)
		}
		c.want(t, "after a thousand lies")
		c.doubtOf(1001, "1000/shop.cart", "h:1", refusedKind, true)
		c.want(t, "another party says so, too", "h:1")
	})
	t.Run("who calls alone harms nobody", func(t *testing.T) {
		t.Parallel()
		c := newCourt(4)
		for i := range 3 {
			c.answer(c.jury.DoubtOf(c.now, i, "1000/shop.web", 1, &l5pb.Doubt{Addr: "h:1", Kind: refusedKind, Ejected: true, Text: "it failed"}))
			c.sleep(time.Second)
		}
		c.want(t, "three processes of the only caller", "h:1")
	})
	t.Run("a process that lies harms nobody", func(t *testing.T) {
		t.Parallel()
		c := newCourt(4)
		for range 1000 {
			c.doubt(1, "h:1", refusedKind, true)
			c.doubt(1, "h:2", timedOut, true)
			c.doubt(1, "no such instance", refusedKind, true)
			c.sleep(50 * time.Millisecond)
		}
		c.want(t, "after a thousand lies")
		if n := c.probed["h:1"]; n > 201 {
			t.Errorf("%d probes in 50 s", n)
		}
	})
	t.Run("several processes are believed", func(t *testing.T) {
		t.Parallel()
		c := newCourt(4)
		c.doubt(1, "h:1", failedKind, true)
		c.sleep(20 * time.Second) // the first is no longer counted
		c.doubt(2, "h:1", failedKind, true)
		c.doubt(3, "h:1", failedKind, true)
		c.sleep(time.Second)
		c.want(t, "two of three within 10 s")
		c.doubt(4, "h:1", failedKind, true)
		c.sleep(time.Second)
		c.want(t, "three of three", "h:1")
		c.sleep(3 * time.Second)
		c.want(t, "it answers probes: tried again")
	})
	t.Run("time-outs of several processes do not wait for the probe's", func(t *testing.T) {
		t.Parallel()
		c := newCourt(4)
		c.silent["h:1"] = true
		c.doubt(1, "h:1", timedOut, false)
		c.doubt(2, "h:1", timedOut, false)
		c.want(t, "two")
		c.doubt(3, "h:1", timedOut, false)
		c.want(t, "three", "h:1")
	})
	t.Run("several processes that wait for one instance do not wait for their time-outs", func(t *testing.T) {
		t.Parallel()
		c := newCourt(8)
		c.doubt(1, "h:1", stalled, false)
		c.doubt(2, "h:1", stalled, false)
		c.want(t, "two")
		c.doubt(3, "h:1", stalled, false)
		c.want(t, "three", "h:1")
		if reason := c.jury.Downs()[0].GetReason(); !strings.Contains(reason, "3 processes wait") {
			t.Errorf("reason: %s", reason)
		}
	})
	t.Run("a wait that is over is no evidence", func(t *testing.T) {
		t.Parallel()
		c := newCourt(8)
		for i := range 100 {
			c.doubt(i, "h:1", stalled, false)
			c.doubt(i+1, "h:1", stalled, false)
			c.answered(i, "h:1")
			c.sleep(100 * time.Millisecond)
		}
		c.want(t, "never more than two wait")
		c.answered(100, "h:1")
		c.sleep(time.Second)
		c.doubt(1, "h:1", timedOut, false)
		c.answered(1, "h:1")
		c.doubt(2, "h:1", stalled, false)
		c.doubt(3, "h:1", stalled, false)
		c.want(t, "an answer takes no time-out back", "h:1")
	})
	t.Run("waits for many instances are the fault of none", func(t *testing.T) {
		t.Parallel()
		c := newCourt(8)
		for i := range 3 {
			for at := range 8 {
				c.doubt(i, fmt.Sprint("h:", at), stalled, false)
			}
		}
		c.want(t, "all are waited for")
	})
	t.Run("a device that stands still again and again ejects no more each time", func(t *testing.T) {
		t.Parallel()
		c := newCourt(8)
		for at := range 6 { // each process waits for one after the other
			for i := range 3 {
				c.doubt(i, fmt.Sprint("h:", at), stalled, false)
			}
			for i := range 3 {
				c.answered(i, fmt.Sprint("h:", at))
			}
		}
		c.want(t, "one after the other", "h:0", "h:1")
	})
	t.Run("those who had one time-out each do not keep from being heard who had several", func(t *testing.T) {
		t.Parallel()
		c := newCourt(8)
		row := func(process int, row uint32) {
			c.answer(c.jury.DoubtOf(c.now, process, "1000/shop.web", 1, &l5pb.Doubt{Addr: "h:1", Kind: timedOut, Row: row, Text: "it timed out"}))
		}
		for i := range 50 {
			row(i, 1)
		}
		for i := 40; i < 43; i++ {
			c.sleep(300 * time.Millisecond)
			row(i, 2)
		}
		c.sleep(300 * time.Millisecond)
		c.want(t, "three of the last of fifty", "h:1")
	})
	t.Run("processes of one party that say they wait harm nobody", func(t *testing.T) {
		t.Parallel()
		c := newCourt(8)
		for i := range 10 {
			c.doubtOf(i, "1000/shop.web", "h:1", stalled, false)
		}
		c.want(t, "ten of one")
	})
	t.Run("half of a service is kept whatever happens", func(t *testing.T) {
		t.Parallel()
		c := newCourt(4)
		for i := range 4 {
			addr := fmt.Sprint("h:", i)
			c.dead[addr] = true
			c.doubt(1, addr, refusedKind, false)
		}
		c.want(t, "all dead", "h:0", "h:1") // I2: MaxEjected is half
	})
}

// I2 at the level of a device: whatever processes say and probes find, half of the weight stays in use.
func TestJuryKeepsTheBound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 9).Draw(t, "instances")
		c := newCourt(n)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			addr := fmt.Sprint("h:", rapid.IntRange(0, n-1).Draw(t, "instance"))
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				c.dead[addr] = !c.dead[addr]
			case 1:
				c.doubt(rapid.IntRange(1, 5).Draw(t, "process"), addr, l5pb.Doubt_Kind(rapid.IntRange(0, 4).Draw(t, "kind")), rapid.Bool().Draw(t, "ejected"))
			default:
				c.sleep(time.Duration(rapid.IntRange(50, 3000).Draw(t, "ms")) * time.Millisecond)
			}
			taken := 0
			for _, d := range c.jury.Downs() {
				if !strings.Contains(d.GetReason(), "on trial") {
					taken++
				}
			}
			if 2*taken > n {
				t.Fatalf("%d of %d are down: %v", taken, n, c.downs())
			}
		}
	})
}
