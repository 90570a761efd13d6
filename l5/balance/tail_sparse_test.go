// One goroutine plays the model: there is nothing to race, and the detector makes it ten times slower.

//go:build !race

package balance_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
)

// agent is what a device's agent would be that probes for the callers of its device: one probe of a random replica a call, within
// a bound, its answers told to all of them at a pace.
type agent struct {
	b       *bed
	most    float64 // probes a second
	have    float64
	filled  time.Duration
	answers []hint
	callers []*probed
}

// hint is a probe's answer, as callers keep it: how long a call would take.
type hint struct {
	replica int
	wait    time.Duration
	at      time.Duration
	used    int // calls sent there since
}

// hintTTL is how long a hint counts.
const hintTTL = time.Second

func (a *agent) probe() {
	a.have = min(a.have+(a.b.now-a.filled).Seconds()*a.most, max(1, a.most/4))
	a.filled = a.b.now
	if a.have < 1 {
		return
	}
	a.have--
	replica := a.b.random.IntN(a.b.replicas)
	a.b.ask(replica, func(_ int, latency time.Duration) {
		a.answers = append(a.answers, hint{replica: replica, wait: latency, at: a.b.now})
	})
}

func (a *agent) tell() {
	for _, h := range a.answers {
		for _, c := range a.callers {
			c.hints[h.replica] = h
		}
	}
	a.answers = nil
}

// probed is a caller that takes the least wait of a few draws, by the agent's hint where no call of its own ended since.
type probed struct {
	*ours
	agent *agent
	hints []hint
}

// newProbed makes callers of whom so many share an agent.
func newProbed(share int, most float64, pace time.Duration) func(*bed, int) strategy {
	agents := map[int]*agent{}
	return func(b *bed, caller int) strategy {
		a := agents[caller/share]
		if a == nil {
			a = &agent{b: b, most: most}
			agents[caller/share] = a
			b.every(pace*time.Duration(caller)/time.Duration(b.callers), pace, a.tell)
		}
		p := &probed{ours: newOurs(balance.HotCold)(b, caller).(*ours), agent: a, hints: make([]hint, b.replicas)}
		a.callers = append(a.callers, p)
		return p
	}
}

func (p *probed) pick(send func(int)) {
	p.agent.probe()
	best, least := -1, time.Duration(0)
	for range 4 {
		replica := p.b.random.IntN(p.b.replicas)
		wait := p.loads[replica].Latency() * time.Duration(1+p.loads[replica].InFlight())
		if h := p.hints[replica]; h.at > 0 && p.b.now-h.at < hintTTL {
			wait = h.wait * time.Duration(1+h.used)
		}
		if best < 0 || wait < least {
			best, least = replica, wait
		}
	}
	p.hints[best].used++
	p.loads[best].Begin()
	send(best)
}

func (p *probed) done(replica int, latency time.Duration) {
	p.ours.done(replica, latency)
	p.hints[replica].at = 0
}

// TestSparse plays forty of the testbed's replicas at 90 % load with callers that have few calls for each of them: what would
// probes by the device's agent do for hot-cold? Ten callers share an agent. The table is recorded in testdata/sparse.table.
func TestSparse(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name   string
		create func() func(*bed, int) strategy
	}{
		{"WRR by CPU", func() func(*bed, int) strategy { return newWRR }},
		{"Prequal, 3 probes a call", func() func(*bed, int) strategy { return newPrequal }},
		{"adaptive", func() func(*bed, int) strategy { return newOurs(balance.Adaptive) }},
		{"hot-cold", func() func(*bed, int) strategy { return newOurs(balance.HotCold) }},
		{"  agents: 1 probe a call, told in 0.1 s", func() func(*bed, int) strategy { return newProbed(10, 1e9, 100*time.Millisecond) }},
		{"  agents: 20 probes/s, told in 0.1 s", func() func(*bed, int) strategy { return newProbed(10, 20, 100*time.Millisecond) }},
		{"  agents: 20 probes/s, told in 0.5 s", func() func(*bed, int) strategy { return newProbed(10, 20, 500*time.Millisecond) }},
	}
	callers := []int{40, 400} // 0.8 and 0.08 calls a second from each to each
	var p99 [7][2]float64
	t.Run("runs", func(t *testing.T) {
		for i, row := range rows {
			for j, n := range callers {
				t.Run(fmt.Sprintf("%d/%d", i, n), func(t *testing.T) {
					t.Parallel()
					bed := published(0.9)
					bed.replicas, bed.callers, bed.rate, bed.lasts = 40, n, bed.rate*10, 24*time.Second
					p99[i][j] = run(bed, row.create()).quantile(0.99).Seconds() * 1000
				})
			}
		}
	})
	var table strings.Builder
	fmt.Fprintf(&table, "p99 in ms%31s %9s %9s\n", "callers:", "40", "400")
	for i, row := range rows {
		fmt.Fprintf(&table, "%-40s %9.1f %9.1f\n", row.name, p99[i][0], p99[i][1])
	}
	t.Log("\n" + table.String())
	recorded(t, "testdata/sparse.table", table.String())
}
