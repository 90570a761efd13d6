package agent_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/sim"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/internal/stall"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// The simulated device: processes that call one service, each with the core that its client has, and their agent's jury. From
// hangAt on one instance takes calls, answers probes, and answers no call; from healAt on it does. Time-outs are 250 ms, and a
// message between process and agent takes a millisecond.
const (
	hangAt      = time.Second
	healAt      = hangAt + 10*time.Second
	hangTimeout = 250 * time.Millisecond
	hangCourier = time.Millisecond
)

type hangWorld struct {
	*sim.World
	jury      agent.Jury
	processes []*hangProcess
	downs     string
	calls     int
	failed    []time.Duration // since hangAt, when each began that failed
	silent    bool            // processes do not say that they wait
}

type hangProcess struct {
	w        *hangWorld
	number   int
	group    *balance.Group
	waits    map[string]*stall.Wait
	ended    map[string]uint64
	inFlight map[string]int
	row      map[string]uint32
	down     map[string]bool
	window   map[string]*balance.Sample
	history  []int64
}

func hangScenario(processes, instances int, silent bool, out **hangWorld) sim.Scenario {
	return func(sw *sim.World) func() error {
		w := &hangWorld{World: sw, jury: agent.NewJury(balance.Config{}), silent: silent}
		*out = w
		var members balance.Members
		for i := range instances {
			members = append(members, balance.Member{Addr: fmt.Sprint("h:", i), Weight: 100, Gray: 1})
		}
		w.answer(w.jury.Replace(w.Now(), members))
		w.Every("", 50*time.Millisecond, func() { w.answer(w.jury.Tick(w.Now())); w.tell() })
		for i := range processes {
			p := &hangProcess{
				w: w, number: i, group: balance.NewGroup(balance.Config{}), waits: map[string]*stall.Wait{}, ended: map[string]uint64{}, inFlight: map[string]int{},
				row: map[string]uint32{}, down: map[string]bool{}, window: map[string]*balance.Sample{}, history: make([]int64, 16),
			}
			for _, m := range members {
				p.waits[m.Addr], p.window[m.Addr] = &stall.Wait{}, &balance.Sample{Addr: m.Addr}
			}
			p.group.Step(w.Now(), members)
			w.processes = append(w.processes, p)
			w.After("", time.Duration(w.Rand().Int64N(int64(stall.Every))), func() { w.Every("", stall.Every, p.look) })
			w.After("", time.Duration(w.Rand().Int64N(int64(hangTimeout))), func() { w.Every("", 250*time.Millisecond, p.tick) })
			pace := 40*time.Millisecond + time.Duration(w.Rand().Int64N(int64(20*time.Millisecond)))
			w.After("", time.Duration(w.Rand().Int64N(int64(pace))), func() { w.Every("", pace, p.call) })
		}
		return nil
	}
}

func (w *hangWorld) since() time.Duration {
	return w.Now().Sub(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC))
}

// answer answers the agent's probes: everybody takes connections.
func (w *hangWorld) answer(probes []string) {
	for _, addr := range probes {
		w.After("", hangCourier, func() { w.answer(w.jury.Probed(w.Now(), addr, nil)); w.tell() })
	}
}

// doubt carries what a process says to the jury.
func (w *hangWorld) doubt(p *hangProcess, d *l5pb.Doubt) {
	w.After("", hangCourier, func() { w.answer(w.jury.DoubtOf(w.Now(), p.number, "1000", 1, d)); w.tell() })
}

// tell carries what the jury decided to all processes, if it is new.
func (w *hangWorld) tell() {
	downs := w.jury.Downs()
	if text := fmt.Sprint(downs); text == w.downs {
		return
	} else {
		w.downs = text
	}
	w.After("", hangCourier, func() {
		for _, p := range w.processes {
			next := map[string]bool{}
			for _, d := range downs {
				next[d.GetAddr()] = true
				p.group.Step(w.Now(), balance.Advice{Addr: d.GetAddr(), Says: balance.AdviceDown})
			}
			for addr := range p.down {
				if !next[addr] {
					p.group.Step(w.Now(), balance.Advice{Addr: addr, Says: balance.AdviceUp})
				}
			}
			p.down = next
		}
	})
}

// pick draws an instance by weight.
func (p *hangProcess) pick(r *rand.Rand) string {
	var total float64
	statuses := p.group.Statuses()
	for _, s := range statuses {
		total += s.Weight
	}
	at := r.Float64() * total
	for _, s := range statuses {
		if at -= s.Weight; at < 0 {
			return s.Addr
		}
	}
	return statuses[0].Addr
}

func (p *hangProcess) call() {
	w := p.w
	addr, began := p.pick(w.Rand()), w.since()
	took := time.Millisecond + time.Duration(w.Rand().ExpFloat64()*float64(time.Millisecond))
	hangs := addr == "h:0" && began >= hangAt && began < healAt
	w.calls++
	p.inFlight[addr]++
	if hangs {
		took = hangTimeout
		w.failed = append(w.failed, began-hangAt)
	}
	w.After("", took, func() {
		p.inFlight[addr]--
		p.ended[addr]++
		if !hangs {
			p.row[addr] = 0
			p.window[addr].Successes++
			p.window[addr].LatencySum += took
			for i := range p.history {
				if took < l5.LatencyBound(i) {
					p.history[i]++
					break
				}
			}
			return
		}
		p.window[addr].Failures++
		p.row[addr]++
		ejected := p.row[addr] == 5
		if p.row[addr] <= 2 || ejected {
			w.doubt(p, &l5pb.Doubt{Addr: addr, Kind: timedOut, Row: p.row[addr], Ejected: ejected, Text: "no answer"})
		}
		if ejected {
			p.step(balance.Struck{Addr: addr})
		}
	})
}

func (p *hangProcess) step(e balance.Event) {
	for _, action := range p.group.Step(p.w.Now(), e) {
		if probe, ok := action.(balance.Probe); ok {
			p.w.After("", hangCourier, func() { p.step(balance.Probed{Addr: probe.Addr, OK: true}) })
		}
		if moved, ok := action.(balance.Moved); ok {
			p.row[moved.Addr] = 0
		}
	}
}

func (p *hangProcess) tick() {
	var window balance.Window
	for _, addr := range slices.Sorted(mapsKeys(p.window)) {
		s := p.window[addr]
		s.InFlight = int64(p.inFlight[addr])
		if s.Successes+s.Failures+s.InFlight > 0 {
			window = append(window, *s)
		}
		*s = balance.Sample{Addr: addr}
	}
	p.step(window)
}

func (p *hangProcess) look() {
	if p.w.silent {
		return
	}
	patience := stall.Patience(p.history, l5.LatencyBound)
	for _, addr := range slices.Sorted(mapsKeys(p.waits)) {
		switch p.waits[addr].Look(p.w.Now(), p.ended[addr], p.inFlight[addr] > 0, patience, false) {
		case stall.Stalled:
			p.w.doubt(p, &l5pb.Doubt{Addr: addr, Kind: stalled, Row: 1, Text: "no answer yet"})
		case stall.TakenBack:
			p.w.doubt(p, &l5pb.Doubt{Addr: addr, Kind: stalled})
		}
	}
}

func mapsKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}

// What an instance that hangs costs the 50 processes of a device, one call of each 50 ms: those that are in flight when the third process
// has waited for longer than calls take, and as many when it is tried again. It serves again when it is well.
func TestHangingInstanceCostsFewCalls(t *testing.T) {
	t.Parallel()
	run := func(seed uint64, silent bool, d time.Duration) (first, all []time.Duration, share float64) {
		var w *hangWorld
		config := sim.Config{Nodes: []string{"device"}, Duration: d}
		if failure := sim.Play(config, sim.Plan{Seed: seed}, hangScenario(50, 10, silent, &w)); failure != nil {
			t.Fatal(failure)
		}
		for _, at := range w.failed {
			if at < time.Second {
				first = append(first, at)
			}
		}
		for _, p := range w.processes { // in the end
			for _, s := range p.group.Statuses() {
				if s.Addr == "h:0" {
					share += s.Weight / 100 / float64(len(w.processes))
				}
			}
		}
		return first, w.failed, share
	}
	var firsts, alls, silents []int
	for seed := range uint64(6) {
		d := healAt
		if seed < 2 {
			d += 35 * time.Second
		}
		first, all, share := run(seed, false, d)
		firsts, alls = append(firsts, len(first)), append(alls, len(all))
		if d > healAt && share < 0.9 {
			t.Errorf("seed %d: healed for 35 s, it has %.0f %% of its weight", seed, 100*share)
		}
		_, before, _ := run(seed, true, healAt)
		silents = append(silents, len(before))
	}
	slices.Sort(firsts)
	slices.Sort(alls)
	slices.Sort(silents)
	t.Log("calls that failed, of 50 processes, over 6 seeds, least, median and most: until it takes none " + three(firsts) + "; in 10 s, tried again and again " + three(alls) + "; without saying who waits " + three(silents))
	if median := firsts[len(firsts)/2]; median > 10 {
		t.Errorf("%d calls failed until it took none, want at most 10", median)
	}
}

func three(sorted []int) string {
	return strconv.Itoa(sorted[0]) + " " + strconv.Itoa(sorted[len(sorted)/2]) + " " + strconv.Itoa(sorted[len(sorted)-1])
}
