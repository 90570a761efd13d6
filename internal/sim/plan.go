package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is a kind of fault.
type Kind uint8

const (
	Crash     Kind = iota // the node is down For a while and loses what OnCrash says
	Cut                   // messages from and to the node are lost For a while
	Delay                 // they take up to a second longer
	Duplicate             // they arrive twice
	Reorder               // they overtake one another
	ClockJump             // the node's clock jumps By
)

var kinds = [...]string{"crash", "cut", "delay", "duplicate", "reorder", "clock jump"}

// String returns the kind's name.
func (k Kind) String() string { return kinds[k] }

// Fault is one thing that goes wrong.
type Fault struct {
	Kind Kind
	Node string
	At   time.Duration // from the start
	For  time.Duration
	By   time.Duration // ClockJump only; forwards or back
}

func (f Fault) active(at time.Duration) bool { return at >= f.At && at < f.At+f.For }

// String says what goes wrong, where and when.
func (f Fault) String() string {
	if f.Kind == ClockJump {
		return fmt.Sprintf("%v of %s by %v at %v", f.Kind, f.Node, f.By, f.At)
	}
	return fmt.Sprintf("%v of %s at %v for %v", f.Kind, f.Node, f.At, f.For)
}

// Plan is a seed and the faults of its run.
type Plan struct {
	Seed   uint64
	Faults []Fault // in the order of time
}

// String lists the faults.
func (p Plan) String() string {
	lines := make([]string, len(p.Faults))
	for i, f := range p.Faults {
		lines[i] = "  " + f.String()
	}
	return fmt.Sprintf("seed %d, %d faults\n%s", p.Seed, len(p.Faults), strings.Join(lines, "\n"))
}

// NewPlan draws the faults of a seed.
func NewPlan(config Config, seed uint64) Plan {
	config = config.defaults()
	r := rand.New(rand.NewPCG(seed, 0xfa017))
	plan := Plan{Seed: seed}
	span := config.Within
	for range r.IntN(config.Faults + 1) {
		f := Fault{
			Kind: config.Kinds[r.IntN(len(config.Kinds))], Node: config.Nodes[r.IntN(len(config.Nodes))],
			At: time.Duration(r.Int64N(int64(span))).Round(time.Millisecond),
		}
		f.For = min(time.Duration(r.Int64N(int64(span/3))).Round(time.Millisecond), span-f.At)
		if f.Kind == ClockJump {
			f.By = time.Duration(r.Int64N(int64(2*time.Minute)) - int64(time.Minute)).Round(time.Second)
		}
		plan.Faults = append(plan.Faults, f)
	}
	slices.SortStableFunc(plan.Faults, func(a, b Fault) int { return int(a.At - b.At) })
	return plan
}
