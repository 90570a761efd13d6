package demo

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/sample/load"
)

// Report is what the demo found.
type Report struct {
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`

	Phases []PhaseReport `json:"phases"`

	OverloadToDecision     time.Duration `json:"overload_to_decision_ns"`
	OverloadToFullCapacity time.Duration `json:"overload_to_full_capacity_ns"`
	Decision               string        `json:"decision"`
	Steps                  []string      `json:"steps"` // of the expansion, in the order in which they ended

	Killed            string        `json:"killed"`
	KillToEjected     time.Duration `json:"kill_to_ejected_ns"` // in every caller
	KillCost          int64         `json:"kill_cost"`          // calls that failed from the kill until its work was replaced
	KillToFaulty      time.Duration `json:"kill_to_faulty_ns"`
	KillToReplaced    time.Duration `json:"kill_to_replaced_ns"`
	TamperToFound     time.Duration `json:"tamper_to_found_ns"`
	TamperToRepaired  time.Duration `json:"tamper_to_repaired_ns"`
	CalmToContracted  time.Duration `json:"calm_to_contracted_ns"`
	FailedWhileShrink int64         `json:"failed_while_shrinking"`

	DevicesStart map[string]int `json:"devices_start"`
	DevicesEnd   map[string]int `json:"devices_end"`

	Checks []Check `json:"checks"`

	phase string // of the load, now
}

// PhaseReport is what the callers saw in one phase.
type PhaseReport struct {
	Name   string        `json:"name"`
	Rate   float64       `json:"rate"`
	Sent   int64         `json:"sent"`
	Failed int64         `json:"failed"`
	P50    time.Duration `json:"p50_ns"`
	P99    time.Duration `json:"p99_ns"`
}

// Check is one expectation.
type Check struct {
	What   string `json:"what"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// Err names the expectations that were not met.
func (r *Report) Err() error {
	var missed []error
	for _, check := range r.Checks {
		if !check.OK {
			missed = append(missed, fmt.Errorf("not met: %s: %s", check.What, check.Detail))
		}
	}
	return errors.Join(missed...)
}

func (r *Report) check(ok bool, what, format string, args ...any) {
	r.Checks = append(r.Checks, Check{What: what, OK: ok, Detail: fmt.Sprintf(format, args...)})
}

// phases takes in what the callers tell at the end: phases of one name count together.
func (r *Report) phases(all load.Report) {
	var seen []string
	for _, p := range all.Phases {
		if slices.Contains(seen, p.Name) {
			continue
		}
		seen = append(seen, p.Name)
		sum := all.Phase(p.Name)
		r.Phases = append(r.Phases, PhaseReport{
			Name: p.Name, Rate: p.Rate * callers, Sent: sum.Sent, Failed: sum.Failed + sum.Dropped,
			P50: sum.Latency.Quantile(0.5), P99: sum.Latency.Quantile(0.99),
		})
	}
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "\n── report, %.0f s in all\n\n", r.Ended.Sub(r.Started).Seconds())
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "phase\treq/s\tsent\tfailed\tp50\tp99")
	for _, p := range r.Phases {
		fmt.Fprintf(tw, "%s\t%.0f\t%d\t%d\t%s\t%s\n", p.Name, p.Rate, p.Sent, p.Failed, round(p.P50), round(p.P99))
	}
	tw.Flush()
	fmt.Fprintln(w)
	for _, row := range []struct {
		what  string
		value time.Duration
		more  string
	}{
		{"overload to decision", r.OverloadToDecision, ""},
		{"overload to full capacity", r.OverloadToFullCapacity, fmt.Sprintf("%d steps", len(r.Steps))},
		{"dead device ejected by every caller", r.KillToEjected, fmt.Sprintf("it cost %d calls", r.KillCost)},
		{"dead device marked faulty", r.KillToFaulty, ""},
		{"dead device replaced", r.KillToReplaced, ""},
		{"drift found", r.TamperToFound, ""},
		{"drift repaired", r.TamperToRepaired, ""},
		{"burst over to contracted", r.CalmToContracted, fmt.Sprintf("%d calls failed meanwhile", r.FailedWhileShrink)},
	} {
		if row.value == 0 {
			continue // the story did not come so far
		}
		more := row.more
		if more != "" {
			more = ", " + more
		}
		fmt.Fprintf(tw, "%s\t%s%s\n", row.what, round(row.value), more)
	}
	tw.Flush()
	fmt.Fprintf(w, "\ndevices at the start: %s\ndevices at the end:   %s\n\n", states(r.DevicesStart), states(r.DevicesEnd))
	for _, check := range r.Checks {
		mark := "ok  "
		if !check.OK {
			mark = "FAIL"
		}
		fmt.Fprintf(w, "%s  %s: %s\n", mark, check.What, check.Detail)
	}
}

func round(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}

func states(counts map[string]int) string {
	var parts []string
	for _, state := range []string{"idle", "held", "in_service", "faulty", "retired"} {
		parts = append(parts, fmt.Sprintf("%s %d", state, counts[state]))
	}
	return strings.Join(parts, ", ")
}
