package bench

import (
	"context"
	"fmt"

	"github.com/zhiyun-ops/zhiyun/gray"
)

func outcomes(prefix string, n int) []gray.MemberOutcome {
	out := make([]gray.MemberOutcome, n)
	for i := range out {
		out[i] = gray.MemberOutcome{ID: fmt.Sprint(prefix, i), Requests: 1000, Failures: int64(i % 3), Reports: 5}
	}
	return out
}

// gray measures the judgement of a stage, with 1,000 devices behind the service.
func (s *suite) gray(context.Context) error {
	s.Progress("gray: judging")
	policy := gray.Deck()
	window := gray.Window{New: outcomes("new", 200), Old: outcomes("old", 800), HasOld: true, Complete: true}
	ours, err := s.each(func(int) error {
		if v := policy.Judge(1000, window); v.Decision != gray.Pass {
			return fmt.Errorf("judged %v: %v", v.Decision, v.Reason)
		}
		return nil
	})
	if err != nil {
		return err
	}
	floor, err := s.each(func(int) error {
		rates := [2]float64{}
		for i, members := range [][]gray.MemberOutcome{window.New, window.Old} {
			var requests, failures int64
			for j := range members {
				requests += members[j].Requests
				failures += members[j].Failures
			}
			rates[i] = float64(requests-failures) / float64(requests)
		}
		if rates[0] <= rates[1]-policy.Margin {
			return fmt.Errorf("rates %v", rates)
		}
		return nil
	})
	s.add("gray.judge.1000", ours, "ns", floor, "two sums, one comparison, no reason given")
	return err
}
