package main

import (
	"strconv"
	"strings"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// limits reads what --limit says: tool:NAME=8, tool:NAME=5/s, device=2, module=4, open=50000.
func limits(texts []string) (flow.Limits, error) {
	out := flow.Limits{Tools: map[string]flow.ToolLimit{}}
	for _, text := range texts {
		what, number, _ := strings.Cut(text, "=")
		tool, isTool := strings.CutPrefix(what, "tool:")
		if rate, perSecond := strings.CutSuffix(number, "/s"); isTool && perSecond && tool != "" {
			each, err := strconv.ParseFloat(rate, 64)
			if err != nil || !(each > 0) {
				return out, usage("--limit %q: want a number of starts a second, as tool:package.install=5/s", text)
			}
			limit := out.Tools[tool]
			limit.Rate = each
			out.Tools[tool] = limit
			continue
		}
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			return out, usage("--limit %q: want WHAT=N, as tool:package.install=8, device=2, module=4 or open=50000", text)
		}
		switch {
		case isTool && tool != "":
			limit := out.Tools[tool]
			limit.Concurrency = n
			out.Tools[tool] = limit
		case what == "device":
			out.PerDevice = n
		case what == "module":
			out.PerModule = n
		case what == "open":
			out.Open = n
		default:
			return out, usage("--limit %q: %q is none of tool:NAME, device, module and open", text, what)
		}
	}
	return out, nil
}
