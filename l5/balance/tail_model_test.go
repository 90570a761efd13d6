// One goroutine plays the model: there is nothing to race, and the detector makes it ten times slower.

//go:build !race

package balance_test

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// The model of the testbed of a published reproduction of Prequal (prequal-rs, experiment B): replicas with one worker slot
// served in order of arrival and a quota of processor time per 100 ms, each with an antagonist that burns processor time in
// the same slot, on and off in a square wave whose phases are spread over the replicas; callers that know nothing of one another;
// arrivals at random, work of normal distribution cut off at zero.
type testbed struct {
	replicas   int
	callers    int
	rate       float64       // calls per second
	work       time.Duration // mean and deviation before the cut
	wire       time.Duration // each way
	quota      float64       // of a processor
	antagonist float64       // of a processor, while it is on; 0: none
	wave       time.Duration // on for the first half
	slow       []float64     // work of a replica is multiplied by this; nil: by 1
	slowFrom   time.Duration // when slow begins
	slowUntil  time.Duration // when it ends; 0: never
	parallel   bool          // calls do not wait for one another
	lasts      time.Duration
	seed       uint64
}

// published is the testbed at a load of the published capacity, 138 calls per second. Its report names all but the work:
// that is fitted, once, to the published latencies.
func published(load float64) testbed {
	return testbed{
		replicas: 4, callers: 6, rate: 138 * load, work: 10100 * time.Microsecond, wire: 100 * time.Microsecond,
		quota: 0.75, antagonist: 0.6, wave: 20 * time.Second, lasts: 800 * time.Second, seed: 1,
	}
}

// strategy is one caller's way to choose a replica.
type strategy interface {
	pick(send func(replica int))
	done(replica int, latency time.Duration)
}

// bed is a testbed at work.
type bed struct {
	testbed
	random    *rand.Rand
	now       time.Duration
	events    events
	seq       int
	servers   []*server
	latencies []time.Duration
	picks     []int
	onPick    func(replica int)
}

type bedEvent struct {
	at  time.Duration
	seq int
	do  func()
}

type events []bedEvent

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(bedEvent)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func (b *bed) after(d time.Duration, do func()) {
	b.seq++
	heap.Push(&b.events, bedEvent{b.now + d, b.seq, do})
}

// every repeats do from first on.
func (b *bed) every(first, period time.Duration, do func()) {
	b.after(first, func() {
		do()
		b.every(period, period, do)
	})
}

// run plays a testbed with the strategy of each caller that make returns.
func run(t testbed, create func(b *bed, caller int) strategy) *bed {
	b := &bed{testbed: t, random: rand.New(rand.NewPCG(t.seed, 7)), picks: make([]int, t.replicas)}
	for i := range t.replicas {
		s := &server{bed: b, index: i}
		b.servers = append(b.servers, s)
		b.every(500*time.Millisecond, 500*time.Millisecond, s.sampleCPU)
		if t.antagonist > 0 {
			s.phase = time.Duration(i) * t.wave / time.Duration(t.replicas)
			b.after(0, s.antagonize)
		}
	}
	var callers []strategy
	for i := range t.callers {
		callers = append(callers, create(b, i))
	}
	b.after(b.gap(), func() { b.arrive(callers) })
	for len(b.events) > 0 {
		e := heap.Pop(&b.events).(bedEvent)
		if b.now = e.at; b.now > t.lasts {
			break
		}
		e.do()
	}
	slices.Sort(b.latencies)
	return b
}

func (b *bed) gap() time.Duration {
	return time.Duration(b.random.ExpFloat64() / b.rate * float64(time.Second))
}

func (b *bed) arrive(callers []strategy) {
	caller := callers[b.random.IntN(len(callers))]
	work := time.Duration(max(0, 1+b.random.NormFloat64()) * float64(b.work))
	b.call(caller, work)
	b.after(b.gap(), func() { b.arrive(callers) })
}

// call makes one call.
func (b *bed) call(caller strategy, work time.Duration) {
	began := b.now
	caller.pick(func(replica int) {
		sent := b.now
		b.picks[replica]++
		if b.onPick != nil {
			b.onPick(replica)
		}
		b.after(b.wire, func() {
			b.servers[replica].accept(work, func() {
				b.after(b.wire, func() {
					if began > 2*time.Second { // what went before is warming up
						b.latencies = append(b.latencies, b.now-began)
					}
					caller.done(replica, b.now-sent)
				})
			})
		})
	})
}

// ask probes a replica: answer gets its calls in flight and its estimate of latency. A replica that has used up its quota answers
// in the next period.
func (b *bed) ask(replica int, answer func(inFlight int, latency time.Duration)) {
	server := b.servers[replica]
	b.after(b.wire, func() {
		b.after(server.frozen(), func() {
			inFlight, latency := server.inFlight, server.estimate()
			b.after(b.wire, func() { answer(inFlight, latency) })
		})
	})
}

func (b *bed) quantile(q float64) time.Duration {
	return b.latencies[int(q*float64(len(b.latencies)-1))]
}

// server is one replica.
type server struct {
	bed      *bed
	index    int
	phase    time.Duration // of the antagonist's wave
	queue    []*job        // the first has the slot
	inFlight int           // calls, queued or in the slot
	ring     []finished    // the last calls

	period  time.Duration // of the quota, number
	used    time.Duration // of it in this period
	cpu     time.Duration // in all
	sampled time.Duration // cpu at the last sample
	util    float64
	freezes [][2]time.Duration // from, to: out of quota

	deficit, looked time.Duration // of the antagonist
}

type job struct {
	work time.Duration // of processor time; 0: burn
	burn time.Duration // until this much time went by
	done func()
}

// finished is a call that ended: how many were in flight when it came, and how long it took.
type finished struct {
	at       time.Duration
	inFlight int
	took     time.Duration
}

const quotaPeriod = 100 * time.Millisecond

func (s *server) accept(work time.Duration, done func()) {
	s.inFlight++
	came, inFlight := s.bed.now, s.inFlight
	end := func() {
		s.inFlight--
		if s.ring = append(s.ring, finished{s.bed.now, inFlight, s.bed.now - came}); len(s.ring) > 128 {
			s.ring = s.ring[1:]
		}
		done()
	}
	work = max(1, time.Duration(float64(work)*s.factor()))
	if s.bed.parallel {
		s.bed.after(work, end)
		return
	}
	s.enqueue(&job{work: work, done: end})
}

// factor is what the work of a call takes here and now.
func (s *server) factor() float64 {
	b := s.bed
	if b.slow == nil || b.now < b.slowFrom || b.slowUntil > 0 && b.now >= b.slowUntil {
		return 1
	}
	return b.slow[s.index]
}

func (s *server) enqueue(j *job) {
	if s.queue = append(s.queue, j); len(s.queue) == 1 {
		s.start()
	}
}

// start gives the slot to the first in the queue.
func (s *server) start() {
	j := s.queue[0]
	var end time.Duration
	if j.work > 0 {
		end = s.spend(j.work, math.MaxInt64)
	} else {
		end = s.spend(math.MaxInt64, s.bed.now+j.burn)
	}
	s.bed.after(end-s.bed.now, func() {
		s.queue = s.queue[1:]
		if len(s.queue) > 0 {
			s.start()
		}
		j.done()
	})
}

// spend runs from now until work is done or the time is until, under the quota, and returns when that is.
func (s *server) spend(work, until time.Duration) time.Duration {
	at := s.bed.now
	quota := time.Duration(s.bed.quota * float64(quotaPeriod))
	for {
		if period := at / quotaPeriod; period != s.period {
			s.period, s.used = period, 0
		}
		end := (s.period + 1) * quotaPeriod
		slice := min(work, quota-s.used, end-at, max(0, until-at))
		at += slice
		work -= slice
		s.used += slice
		s.cpu += slice
		switch {
		case work <= 0 || at >= until:
			return at
		case s.used >= quota:
			s.freezes = append(s.freezes, [2]time.Duration{at, end})
			at = end
		}
	}
}

// backlog is the time that what is queued here and one call of mean work will take.
func (s *server) backlog() time.Duration {
	calls := 1
	if !s.bed.parallel {
		calls += s.inFlight
	}
	return time.Duration(float64(calls) * float64(s.bed.work) * s.factor())
}

// frozen is how long it takes from now until the quota lets the replica answer.
func (s *server) frozen() time.Duration {
	for len(s.freezes) > 0 && s.freezes[0][1] <= s.bed.now {
		s.freezes = s.freezes[1:]
	}
	if len(s.freezes) > 0 && s.freezes[0][0] <= s.bed.now {
		return s.freezes[0][1] - s.bed.now
	}
	return 0
}

// sampleCPU smooths the use of the allocation.
func (s *server) sampleCPU() {
	used := float64(s.cpu-s.sampled) / (float64(500*time.Millisecond) * s.bed.quota)
	s.sampled = s.cpu
	s.util = 0.7*s.util + 0.3*used
}

// antagonize burns the antagonist's share in bursts through the slot.
func (s *server) antagonize() {
	now := s.bed.now
	if (now+s.phase)%s.bed.wave < s.bed.wave/2 {
		s.deficit += time.Duration(s.bed.antagonist * float64(now-s.looked))
	}
	s.looked = now
	s.deficit = min(s.deficit, 300*time.Millisecond)
	if s.deficit < 20*time.Millisecond {
		s.bed.after(10*time.Millisecond, s.antagonize)
		return
	}
	burst := min(s.deficit, 100*time.Millisecond)
	s.enqueue(&job{burn: burst, done: func() {
		s.deficit -= burst
		s.antagonize()
	}})
}

// estimate is how long a call would take that came now: the median of the sixteen recent calls that met the most similar load,
// scaled to the load of now.
func (s *server) estimate() time.Duration {
	var near []finished
	for _, f := range s.ring {
		if s.bed.now-f.at <= time.Second {
			near = append(near, f)
		}
	}
	if len(near) == 0 {
		near = slices.Clone(s.ring)
	}
	if len(near) == 0 {
		return 0
	}
	distance := func(f finished) int { return max(f.inFlight-s.inFlight, s.inFlight-f.inFlight) }
	slices.SortStableFunc(near, func(a, b finished) int { return distance(a) - distance(b) })
	near = near[:min(len(near), 16)]
	took, met := make([]time.Duration, len(near)), make([]int, len(near))
	for i, f := range near {
		took[i], met[i] = f.took, f.inFlight
	}
	slices.Sort(took)
	slices.Sort(met)
	return took[len(took)/2] * time.Duration(s.inFlight+1) / time.Duration(met[len(met)/2]+1)
}
