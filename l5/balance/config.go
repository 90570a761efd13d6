package balance

import "time"

// Config of a Group. The zero value of a field means its default.
type Config struct {
	// EjectFor is how long an instance is ejected the first time; each further time in a row doubles it up to
	// EjectMax. Default: 1 s and 1 min.
	EjectFor, EjectMax time.Duration
	// MaxEjected bounds the share of a service's weight that is taken away on this caller's own evidence: by ejection
	// and by latency, together. Default: 0.5.
	MaxEjected float64
	// TrialShare is the share of its weight that an instance gets on trial, and at the beginning of a slow start.
	// Default: 0.1.
	TrialShare float64
	// TrialSuccesses is how many calls must succeed on trial, none failing. Default: 3.
	TrialSuccesses int
	// TrialFor is how long a trial lasts at most: without a failure until then the instance is up, for a caller of few calls.
	// Default: 10 s.
	TrialFor time.Duration
	// ForgetAfter is how long an instance must have been up for the ejection time to start over. Default: 1 min.
	ForgetAfter time.Duration
	// SlowStart is how long the weight of an instance takes to grow from TrialShare to all of it after the instance joined
	// a service that was known already, or came back from a trial. Default: 4 s; negative: it has all at once.
	SlowStart time.Duration
	// SlowRatio is how many times the latency of its faster peers an instance may have before it gets less. Default: 3.
	SlowRatio float64
	// SlowMargin is the least difference in latency that counts. Default: 1 ms.
	SlowMargin time.Duration
	// FailureMargin is how far the share of failed calls may be above that of the peers. Default: 0.2.
	FailureMargin float64
	// MinVolume is how many recent calls an instance and its peers must have had before shares of failed calls are compared.
	// Default: 20.
	MinVolume float64
}

func (c Config) defaults() Config {
	setDuration(&c.EjectFor, time.Second)
	setDuration(&c.EjectMax, time.Minute)
	setDuration(&c.TrialFor, 10*time.Second)
	setDuration(&c.ForgetAfter, time.Minute)
	setDuration(&c.SlowMargin, time.Millisecond)
	if c.SlowStart == 0 {
		c.SlowStart = 4 * time.Second
	}
	setFloat(&c.MaxEjected, 0.5)
	setFloat(&c.TrialShare, 0.1)
	setFloat(&c.SlowRatio, 3)
	setFloat(&c.FailureMargin, 0.2)
	setFloat(&c.MinVolume, 20)
	if c.TrialSuccesses <= 0 {
		c.TrialSuccesses = 3
	}
	c.EjectMax = max(c.EjectMax, c.EjectFor)
	return c
}

func setDuration(field *time.Duration, value time.Duration) {
	if *field <= 0 {
		*field = value
	}
}

func setFloat(field *float64, value float64) {
	if *field <= 0 {
		*field = value
	}
}
