package gray

import "math"

// Window is the evidence of one stage.
type Window struct {
	New      []MemberOutcome // of the members of the rollout
	Old      []MemberOutcome // of all other members of the service
	HasOld   bool            // the service has other members that get traffic
	Complete bool            // nothing of the window is unknown
}

// Need is how many requests the new members must have served in a stage before it is judged: their cores by
// minCores (at least 1), times MinRequests, rounded up.
func (p Policy) Need(members []Member, minCores int) int64 {
	cores := 0
	for _, m := range members {
		cores += m.Cores
	}
	return int64(math.Ceil(float64(cores) / float64(max(minCores, 1)) * float64(p.MinRequests)))
}

// Judge looks at one stage: Pass if the gate is green, Fail if it is red, Hold if the evidence does not
// suffice. It is a pure function of its arguments. need comes from Need.
func (p Policy) Judge(need int64, w Window) Verdict {
	if !w.Complete {
		return hold(CodeDataGap)
	}
	n, o := sum(w.New), sum(w.Old)
	reports := int64(0)
	for _, m := range w.New {
		reports = max(reports, m.Reports)
	}
	if w.HasOld && o.Requests == 0 {
		return hold(CodeBaselineMissing, Number{"requests", float64(n.Requests)}, Number{"need", float64(need)})
	}
	// bar is the success rate that must be exceeded.
	bar, old := p.Floor, math.NaN()
	if w.HasOld {
		old = rate(o)
		bar = old - p.Margin
	}
	if n.Requests < need {
		if p.Curtail && n.Failures > 0 {
			best := MemberOutcome{Requests: need, Failures: n.Failures}
			if !exceeds(rate(best), bar) {
				return p.verdict(Fail, w.HasOld, n, need, rate(n), old)
			}
		}
		return hold(CodeRequestsFew, Number{"requests", float64(n.Requests)}, Number{"need", float64(need)})
	}
	if reports < p.MinReports {
		return hold(CodeReportsFew, Number{"reports", float64(reports)}, Number{"need", float64(p.MinReports)})
	}
	if exceeds(rate(n), bar) {
		return p.verdict(Pass, w.HasOld, n, need, rate(n), old)
	}
	return p.verdict(Fail, w.HasOld, n, need, rate(n), old)
}

func (p Policy) verdict(d Decision, hasOld bool, n MemberOutcome, need int64, rate, old float64) Verdict {
	numbers := append(make([]Number, 0, 6), Number{"new", rate})
	code := CodeFloorOK
	if hasOld {
		code = CodeSuccessOK
		numbers = append(numbers, Number{"old", old}, Number{"margin", p.Margin})
	} else {
		numbers = append(numbers, Number{"floor", p.Floor})
	}
	if d == Fail {
		code = CodeFloorLow
		if hasOld {
			code = CodeSuccessLow
		}
	}
	numbers = append(numbers, Number{"requests", float64(n.Requests)}, Number{"failures", float64(n.Failures)}, Number{"need", float64(need)})
	return Verdict{Decision: d, Reason: Reason{Code: code, Numbers: numbers}}
}

func hold(code string, numbers ...Number) Verdict {
	return Verdict{Decision: Hold, Reason: Reason{Code: code, Numbers: numbers}}
}

func sum(members []MemberOutcome) MemberOutcome {
	var s MemberOutcome
	for i := range members {
		s.Requests += members[i].Requests
		s.Failures += members[i].Failures
	}
	return s
}

// rate is the success rate; of nothing it is 1, which no caller of it relies on.
func rate(m MemberOutcome) float64 {
	if m.Requests == 0 {
		return 1
	}
	return float64(m.Requests-m.Failures) / float64(m.Requests)
}

// exceeds is a > b, with rates that differ only by rounding taken for equal: 0.95 does not exceed 1 - 0.05.
func exceeds(a, b float64) bool { return a-b > 1e-12 }
