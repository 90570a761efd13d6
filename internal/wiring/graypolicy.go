package wiring

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/gray"
)

// GrayPolicy is the policy that a module's manifest asks for: a named one with overrides, as
// {policy: deck, params: {soak: 2s, stages: "10,50,100"}}. The names are those of gray.Policy's JSON form.
func GrayPolicy(spec cmdb.GraySpec) (gray.Policy, error) {
	var p gray.Policy
	switch spec.Policy {
	case "", "default":
		p = gray.Default()
	case "deck":
		p = gray.Deck()
	default:
		return p, fmt.Errorf("gray.policy %q: there are default and deck", spec.Policy)
	}
	rest := make(map[string]string, len(spec.Params))
	var faults []error
	requests, reports := int(p.MinRequests), int(p.MinReports)
	for name, text := range spec.Params {
		if name != "stages" {
			rest[name] = text
			continue
		}
		p.Stages = nil
		for part := range strings.SplitSeq(text, ",") {
			percent, err := strconv.Atoi(strings.TrimSpace(part))
			if err != nil {
				faults = append(faults, fmt.Errorf("gray.params.stages %q: want percentages, as 10,50,100", text))
			}
			p.Stages = append(p.Stages, percent)
		}
	}
	faults = append(faults, overrides{
		durations: map[string]*time.Duration{"soak": &p.Soak, "max_stage": &p.MaxStage, "gap_reset": &p.GapReset, "lost_after": &p.LostAfter},
		shares:    map[string]*float64{"margin": &p.Margin, "floor": &p.Floor},
		counts:    map[string]*int{"min_requests": &requests, "min_reports": &reports},
		flags:     map[string]*bool{"curtail": &p.Curtail},
	}.read("gray.params", rest))
	p.MinRequests, p.MinReports = int64(requests), int64(reports)
	return p, errors.Join(faults...)
}
