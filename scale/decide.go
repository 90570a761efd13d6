package scale

import (
	"math"
	"time"
)

// Decision is what to do about a module, and why. Deciding never acts.
type Decision struct {
	Module string    `json:"module"`
	At     time.Time `json:"at"`

	Want  int `json:"want"`  // devices there should be
	Have  int `json:"have"`  // devices there are: in service and coming, without those leaving
	Delta int `json:"delta"` // Want - Have: above 0 grow, below 0 shrink, 0 hold

	// Shortage is the capacity to add, in requests per second, when Delta is above 0. With devices of several
	// types another count than Delta may be the right one; Place finds it.
	Shortage float64 `json:"shortage,omitempty"`

	// Keep is the capacity that must remain when Delta is below 0.
	Keep float64 `json:"keep,omitempty"`

	Capacity float64 `json:"capacity"` // of the devices in Have
	Load     float64 `json:"load"`     // as it counted; 0 when unknown
	Reason   Reason  `json:"reason"`
}

// Hold says that nothing is to be done.
func (d Decision) Hold() bool { return d.Delta == 0 }

// Direction of an order.
type Direction string

const (
	Out Direction = "out" // more devices
	In  Direction = "in"  // fewer
)

// decider is one decision in the making.
type decider struct {
	now    time.Time
	m      Module
	stay   []Device
	come   []Device
	unit   float64
	target float64
	high   float64
	load   load
	d      Decision
	bug    string // a planted bug; empty outside of this package's own tests
}

// Decide says how many devices a module should have now. It is a pure function of its arguments: the same
// module and history give the same decision.
//
// It grows when load, the median over Policy.ReactWithin or extended by its trend to the time when devices ordered
// now would serve, exceeds Policy.High of the capacity in service and on its way; then to where load uses
// Policy.Target. Devices on their way count and are never called back. It shrinks only when load has fitted the
// smaller module for all of Policy.InAfter, nothing is on its way in either direction, and no device is still in
// its rollout. When load is not known, or not known freshly, it holds; only a module below its Min grows
// without a look at load.
func Decide(now time.Time, m Module, h History) Decision { return decide(now, m, h, "") }

func decide(now time.Time, m Module, h History, bug string) Decision {
	m = m.filled()
	c := decider{now: now, m: m, stay: m.staying(), come: m.coming(), bug: bug}
	if bug == "forget-pending" {
		c.come = nil
	}
	all := append(c.stay[:len(c.stay):len(c.stay)], c.come...)
	c.unit = m.unit(all)
	c.d = Decision{Module: m.Name, At: now, Want: len(all), Have: len(all), Capacity: m.capacity(all)}
	if err := m.faults(); err != nil {
		c.d.Reason = Reason{Code: CodeInvalid, Text: err.Error()}
		return c.d
	}
	switch {
	case m.Paused:
		return c.hold(CodePaused)
	case m.Fails > 0 && now.Sub(m.LastFail) < m.backoff():
		return c.hold(CodeBackoff, Number{"fails", float64(m.Fails)}, Number{"left_s", (m.backoff() - now.Sub(m.LastFail)).Seconds()})
	}
	c.load = read(now, m.Policy, h)
	c.aim(h)
	if bug == "zero-load" && c.load.code != "" {
		c.load = load{steady: true}
	}
	if c.load.code == "" {
		c.d.Load = c.load.now
	}
	if len(all) < m.Min {
		return c.refill()
	}
	if c.load.code != "" {
		return c.hold(c.load.code, Number{"age_s", c.load.age.Seconds()})
	}
	for _, d := range all {
		if m.Capacity[d.Type] == 0 {
			return c.hold(CodeCapacity)
		}
	}
	if d, decided := c.out(); decided {
		return d
	}
	return c.in()
}

// backoff is how long nothing is ordered after the last failure.
func (m Module) backoff() time.Duration {
	return m.Policy.Backoff << min(m.Fails-1, 5)
}

// aim settles Target and High.
func (c *decider) aim(h History) {
	p := c.m.Policy
	c.target = p.Target
	if c.target == 0 {
		c.target = learn(h, p.Lead, c.m.Loss)
	}
	if c.target == 0 {
		c.target = 0.7
	}
	if c.high = max(p.High, c.target); p.High == 0 {
		c.high = (1 + c.target) / 2
	}
}

// numbers are those that every decision on load shows.
func (c *decider) numbers(more ...Number) []Number {
	return append([]Number{{"load", c.load.now}, {"capacity", c.d.Capacity}, {"target", c.target}, {"high", c.high}}, more...)
}

func (c *decider) hold(code string, numbers ...Number) Decision {
	c.d.Reason = Reason{Code: code, Numbers: numbers}
	return c.d
}

// refill brings the module up to its Min, and at once to what load needs if that is known.
func (c *decider) refill() Decision {
	missing := c.m.Min - c.d.Have
	c.d.Shortage = float64(missing) * c.unit
	numbers := []Number{{"have", float64(c.d.Have)}, {"min", float64(c.m.Min)}}
	if c.load.code == "" {
		c.d.Shortage = max(c.d.Shortage, c.load.now/c.target-c.d.Capacity)
		numbers = append(numbers, c.numbers()...)
	}
	return c.grow(Reason{Code: CodeBelowMin, Numbers: numbers}, missing)
}

// out decides on growth.
func (c *decider) out() (Decision, bool) {
	want, code := c.load.now, CodeLoadHigh
	var more []Number
	switch {
	case c.load.now > c.high*c.d.Capacity:
		// The median says that it is time; while load rises it lags, so the newest bucket counts for how much.
		want = max(want, c.load.last, c.load.rising)
	case c.load.rising > c.high*c.d.Capacity:
		want, code = c.load.rising, CodeLoadRising
		more = []Number{{"expected", c.load.rising}, {"lead_s", c.m.Policy.Lead.Seconds()}}
	case c.load.lost > c.m.Loss*c.load.now && c.load.now > c.target*c.d.Capacity && c.busy() == 0:
		// While devices are on their way, loss is what they were ordered for.
		want, code = max(want, c.load.last), CodeLossHigh
		more = []Number{{"lost", c.load.lost}, {"allowed", c.m.Loss * c.load.now}}
	default:
		return Decision{}, false
	}
	since := c.now.Sub(c.m.LastOut)
	switch {
	case c.m.Max > 0 && c.d.Have >= c.m.Max:
		return c.hold(CodeAtMax, c.numbers(Number{"max", float64(c.m.Max)})...), true
	case !c.m.LastOut.IsZero() && since < c.m.Policy.Cooldown:
		return c.hold(CodeCooldown, c.numbers(Number{"left_s", (c.m.Policy.Cooldown - since).Seconds()})...), true
	}
	c.d.Shortage = max(want/c.target-c.d.Capacity, math.SmallestNonzeroFloat64)
	return c.grow(Reason{Code: code, Numbers: c.numbers(more...)}, 1), true
}

// grow orders what Shortage asks for, at least that many devices, within the caps.
func (c *decider) grow(reason Reason, least int) Decision {
	n := max(least, int(math.Ceil(c.d.Shortage/c.unit-1e-9)))
	step := c.m.Policy.OutStep
	if step == 0 {
		step = max(4, c.d.Have)
	}
	n = min(n, step)
	if c.m.Max > 0 {
		n = min(n, c.m.Max-c.d.Have)
	}
	return c.commit(n, reason)
}

// commit is the last check that both directions pass.
func (c *decider) commit(n int, reason Reason) Decision {
	left := c.m.Policy.PerHour - c.m.Spent
	if left <= 0 {
		c.d.Shortage, c.d.Keep = 0, 0
		return c.hold(CodeHourlyCap, append(reason.Numbers, Number{"spent", float64(c.m.Spent)}, Number{"per_hour", float64(c.m.Policy.PerHour)})...)
	}
	c.d.Delta = max(-left, min(left, n))
	c.d.Want = c.d.Have + c.d.Delta
	c.d.Reason = reason
	return c.d
}

// busy counts the devices that are on their way, in or out, or not yet at full weight.
func (c *decider) busy() int {
	busy := len(c.come) + len(c.m.Leaving)
	for _, d := range c.stay {
		if d.Share < 100 {
			busy++
		}
	}
	return busy
}

// in decides on shrinking.
func (c *decider) in() Decision {
	p := c.m.Policy
	// Load that fits counts with the trend, so that nothing leaves just before it is needed.
	need := max(c.load.peak, c.load.now, c.load.rising) / c.target
	spare := int(math.Floor((c.d.Capacity - need) / c.unit))
	code := CodeLoadLow
	if c.m.Max > 0 && c.d.Have > c.m.Max {
		code, spare = CodeAboveMax, max(spare, c.d.Have-c.m.Max)
	}
	if spare < 1 {
		return c.hold(CodeInBand, c.numbers(Number{"peak", c.load.peak})...)
	}
	busy := c.busy()
	last := c.m.LastIn
	if c.m.LastOut.After(last) {
		last = c.m.LastOut
	}
	switch {
	case c.d.Have <= c.m.Min:
		return c.hold(CodeAtMin, c.numbers(Number{"min", float64(c.m.Min)})...)
	case busy > 0 && c.bug != "shrink-busy":
		return c.hold(CodeBusy, c.numbers(Number{"devices", float64(busy)})...)
	case !c.load.steady && c.bug != "hasty":
		return c.hold(CodeHistory, c.numbers(Number{"in_after_s", p.InAfter.Seconds()})...)
	case !last.IsZero() && c.now.Sub(last) < p.CooldownIn:
		return c.hold(CodeCooldown, c.numbers(Number{"left_s", (p.CooldownIn - c.now.Sub(last)).Seconds()})...)
	}
	step := p.InStep
	if step == 0 {
		step = max(1, c.d.Have/4)
	}
	c.d.Keep = need
	if code == CodeAboveMax {
		c.d.Keep = 0
	}
	return c.commit(-min(spare, step, c.d.Have-c.m.Min), Reason{Code: code, Numbers: c.numbers(Number{"peak", c.load.peak}, Number{"needed", need})})
}
