package gray_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/gray"
)

// members are n devices' outcomes.
func members(prefix string, n int) []gray.MemberOutcome {
	out := make([]gray.MemberOutcome, n)
	for i := range out {
		out[i] = gray.MemberOutcome{ID: fmt.Sprint(prefix, i), Requests: 1000, Failures: int64(i % 3), Reports: 5}
	}
	return out
}

// One judgement of 1,000 devices: one allocation, for the reason's numbers.
func BenchmarkJudge(b *testing.B) {
	b.ReportAllocs()
	p := gray.Deck()
	w := gray.Window{New: members("n", 200), Old: members("o", 800), HasOld: true, Complete: true}
	for b.Loop() {
		if v := p.Judge(1000, w); v.Decision != gray.Pass {
			b.Fatal(v)
		}
	}
}

// One step of a rollout of 200 new devices among 1,000: what a look costs without the store.
func BenchmarkStep(b *testing.B) {
	b.ReportAllocs()
	now := time.Unix(1e9, 0)
	r := gray.Rollout{ID: "r", Service: "s", Policy: gray.Deck()}
	shares := make(map[string]int)
	w := gray.Window{New: members("n", 200), Old: members("o", 800), HasOld: true, Complete: true}
	for _, m := range w.New {
		r.New = append(r.New, gray.Member{ID: m.ID, Cores: 8})
		shares[m.ID] = 10
	}
	for _, m := range w.Old {
		shares[m.ID] = 100
	}
	r = gray.Queue(now, r)
	r, _ = gray.Step(now, r, gray.Observation{First: true}, "")
	r, _ = gray.Step(now, r, gray.Observation{Shares: shares, Window: w}, "")
	b.ResetTimer()
	for b.Loop() {
		gray.Step(now.Add(time.Second), r, gray.Observation{Shares: shares, Window: w}, "")
	}
}
