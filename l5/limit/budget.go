package limit

import (
	"sync/atomic"
	"time"
)

// BudgetConfig tunes a Budget. The zero value of a field means its default.
type BudgetConfig struct {
	// Share is how many calls may be made again, retries and hedges together, for each that succeeded. Default: 0.1.
	Share float64
	// Floor is how many may be made again each second whatever succeeded, so that a caller of few calls has a
	// budget at all. Default: 1.
	Floor float64
	// Bank is for how long a budget that was not used is kept. Default: 10 s.
	Bank time.Duration
}

func (c BudgetConfig) defaults() BudgetConfig {
	if c.Share <= 0 {
		c.Share = 0.1
	}
	if c.Floor <= 0 {
		c.Floor = 1
	}
	if c.Bank <= 0 {
		c.Bank = 10 * time.Second
	}
	return c
}

// Budget bounds the calls that are made again: a share of those that succeeded. When a service fails, nothing
// succeeds, and retries dry up instead of doubling the load (the retry budget of Finagle and of the SRE book). Step is for
// one goroutine, Spend for any number.
type Budget struct {
	config BudgetConfig
	tokens atomic.Int64 // thousandths of a call
	rate   float64      // of successes per second, smoothed over Bank; owned by the goroutine that steps
}

const wholeToken = 1000

// NewBudget returns a budget that holds the floor of one Bank.
func NewBudget(config BudgetConfig) *Budget {
	b := &Budget{config: config.defaults()}
	b.tokens.Store(int64(wholeToken * b.config.Floor * b.config.Bank.Seconds()))
	return b
}

// Step pays in for one more window.
func (b *Budget) Step(c Calls) {
	seconds := c.Span.Seconds()
	if seconds <= 0 {
		return
	}
	bank := b.config.Bank.Seconds()
	b.rate += min(seconds/bank, 1) * (float64(c.Succeeded)/seconds - b.rate)
	most := int64(wholeToken * bank * (b.config.Floor + b.config.Share*b.rate))
	in := int64(wholeToken * (b.config.Floor*seconds + b.config.Share*float64(c.Succeeded)))
	for {
		have := b.tokens.Load()
		if b.tokens.CompareAndSwap(have, min(have+in, most)) {
			return
		}
	}
}

// Spend takes one call from the budget, and reports whether there was one.
func (b *Budget) Spend() bool {
	for {
		have := b.tokens.Load()
		if have < wholeToken {
			return false
		}
		if b.tokens.CompareAndSwap(have, have-wholeToken) {
			return true
		}
	}
}

// Left is how many calls may be made again now.
func (b *Budget) Left() float64 { return float64(b.tokens.Load()) / wholeToken }
