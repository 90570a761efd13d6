package limit

import (
	"math"
	"strconv"
	"strings"
)

// Load is what a callee says of itself. The zero value says nothing.
type Load struct {
	// Utilization is how much of its capacity is in use: 1 is all.
	Utilization float64
	// Rate is how many calls a second it completes, for all its callers.
	Rate float64
}

// Capacity is how many calls a second the callee could complete by its own account; 0: it does not say.
func (l Load) Capacity() float64 {
	if l.Utilization < 0.05 || l.Rate <= 0 {
		return 0 // from next to nothing nothing can be told
	}
	return l.Rate / l.Utilization
}

// String returns the load as the text form of an ORCA load report, which other proxies and balancers read:
// "TEXT application_utilization=0.830, rps_fractional=412.0". It is empty if the load says nothing.
func (l Load) String() string {
	if !(l.Utilization > 0) {
		return ""
	}
	s := "TEXT application_utilization=" + strconv.FormatFloat(l.Utilization, 'f', 3, 64)
	if l.Rate > 0 {
		s += ", rps_fractional=" + strconv.FormatFloat(l.Rate, 'f', 1, 64)
	}
	return s
}

// ParseLoad reads the text form of an ORCA load report: the utilisation of the application, or else that of the CPU, and
// the rate. What it does not understand says nothing.
func ParseLoad(s string) Load {
	rest, ok := strings.CutPrefix(s, "TEXT ")
	if !ok {
		return Load{}
	}
	var l Load
	var cpu float64
	for pair := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || !(f > 0) || math.IsInf(f, 0) {
			continue
		}
		switch name {
		case "application_utilization":
			l.Utilization = f
		case "cpu_utilization":
			cpu = f
		case "rps_fractional":
			l.Rate = f
		}
	}
	if l.Utilization == 0 {
		l.Utilization = cpu
	}
	return l
}
