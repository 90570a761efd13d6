package balance

import (
	"fmt"
	"slices"
)

// Policy says how a Picker chooses.
type Policy uint8

const (
	// Adaptive draws an instance by weight and takes it if it is idle and about as fast as its peers. If not, it looks at
	// more, and takes the one whose calls in flight, for its weight and its latency, are fewest. It is two choices
	// (Mitzenmacher, "The power of two choices", 1996) with as many choices as the moment asks for: one is enough while
	// instances are idle and alike, and two have a floor below which they cannot press the tail when half of the
	// instances are slow. It is the default.
	Adaptive Policy = iota
	// HotCold draws a few by weight and leaves out those that are hot, with more calls in flight than 84 of 100 draws have;
	// of the cold ones it takes that of the least latency, and if all are hot the one with the fewest calls (Wydrowski et
	// al., "Load is not what you should balance: introducing Prequal", NSDI 2024). There are no probes: it goes by what this caller
	// measured. On the model of the published testbed (see the package) that is as good, and to be told with each answer
	// how many calls the callee has in flight is no better. It is not as good for a caller with few calls for each of many
	// instances, which knows little of them (testdata/sparse.table): there Prequal gains from probing three instances a call. Probes
	// by the device's agent for all its callers, at most one a call, were tried on the model: told within 0.1 s they
	// take 11 to 25 % off the p99 at 0.08 calls a second to an instance, and add 7 to 12 % at 0.8, where all callers of a device
	// follow the same old answer; so there are none. Weights are followed within a factor of three: the fastest of
	// several draws is a light instance more often than a draw is.
	HotCold
	// RoundRobin goes round, each as often as its weight says. Up to a bound on the size of the round the order is the smooth
	// one of nginx (a a b a c a a for weights 5, 1, 1), beyond it the static stride order of gRPC's A58.
	RoundRobin
	// WeightedRandom draws one by weight, whatever its load.
	WeightedRandom
	// LeastRequest takes the one with the fewest calls in flight for its weight: of all up to 16 instances, of 8 draws beyond.
	LeastRequest
	// Maglev takes the instance that owns the call's hash in a table (Eisenbud et al., "Maglev", NSDI 2016), or, if it carries
	// more than 1.25 times the mean load, the next that does not (Mirrokni et al., "Consistent hashing with bounded
	// loads", 2016). It is one look into the table. The table is filled as in the paper, but an instance tries four slots in its
	// turn and not all: a change of one in a hundred moves 1.1 to 1.4 hashes of a hundred up to ten thousand instances, where
	// one is the least possible and the paper's rule moves up to 2.8. What an instance owns deviates from its weight by 0.6 % of
	// ten instances, 1.5 % of a hundred, 5 % of ten thousand. At 656 instances the table is another one, and
	// nearly all hashes move. More than 65,534 get a RingHash.
	Maglev
	// RingHash is the same over a ring of points (Karger et al., 1997): a change of membership moves only the hashes of those
	// that came or went. Ownership deviates by 9 to 15 %. The ring has 2^20 places up to 16,384 instances and is laid out as a
	// table from 1,024 on, so that a pick is one look into it, too; beyond 16,384 its places are 2^40, and nearly all hashes move
	// on the way.
	RingHash
	policies int = iota
)

var policyNames = [policies]string{"adaptive", "hot-cold", "round-robin", "weighted-random", "least-request", "maglev", "ring-hash"}

// Policies returns the names of all policies.
func Policies() []string { return slices.Clone(policyNames[:]) }

// String returns the name of the policy, as in "hot-cold".
func (p Policy) String() string {
	if int(p) < policies {
		return policyNames[p]
	}
	return fmt.Sprintf("policy(%d)", uint8(p))
}

// Hashes reports whether the policy goes by the hash of a call.
func (p Policy) Hashes() bool { return p == Maglev || p == RingHash }

// MarshalText implements encoding.TextMarshaler.
func (p Policy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; the empty text is the default.
func (p *Policy) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*p = Adaptive
		return nil
	}
	for i, name := range policyNames {
		if name == string(text) {
			*p = Policy(i)
			return nil
		}
	}
	return fmt.Errorf("balance: policy %q: want one of %q", text, policyNames)
}
