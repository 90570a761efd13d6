package vip

import (
	"fmt"
	"strings"
	"time"
)

// Play runs lines such as "1s add a 10", "2s pick", "2s refused a" on a pool and returns a line each. picks
// are answered until their "closed".
func Play(text string) (string, error) {
	p := &pool{minDown: time.Second, maxDown: 4 * time.Second}
	zero := time.Unix(0, 0)
	var out strings.Builder
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0][0] == '#' {
			continue
		}
		after, err := time.ParseDuration(fields[0])
		if err != nil {
			return "", err
		}
		now, result := zero.Add(after), ""
		arg := func(i int) string {
			if i < len(fields) {
				return fields[i]
			}
			return ""
		}
		var m *member
		if arg(2) != "" {
			m = p.find(arg(2))
		}
		switch fields[1] {
		case "add":
			weight := 0
			fmt.Sscan(arg(3), &weight)
			p.add(arg(2), weight)
		case "drain":
			p.drain(now, arg(2), 10*time.Second)
		case "sweep":
			for _, gone := range p.sweep(now) {
				result += " gone:" + gone.addr
			}
		case "pick":
			picked := p.pick(now, nil)
			if picked == nil {
				result = " nobody"
			} else {
				p.opening(picked)
				p.opened(picked)
				result = " " + picked.addr
			}
		case "try": // a pick that is refused
			picked := p.pick(now, nil)
			p.opening(picked)
			p.closed(picked)
			p.refused(now, picked)
			result = fmt.Sprintf(" %s down until %v", picked.addr, picked.downUntil.Sub(zero))
		case "closed":
			p.closed(m)
		default:
			return "", fmt.Errorf("line %q", line)
		}
		var states []string
		for _, s := range p.servers() {
			states = append(states, fmt.Sprintf("%s=%s/%d", s.Addr, s.State, s.Connections))
		}
		out.WriteString(strings.TrimSpace(fmt.Sprintf("%s =>%s | %s", strings.Join(fields, " "), result, strings.Join(states, " "))) + "\n")
	}
	return out.String(), nil
}

// ParseStat reads what HAProxy prints and counts the servers.
func ParseStat(text string) (int, error) {
	rows, err := parseStat(text)
	return len(rows), err
}

// Picker is a pool of n servers, to be measured.
func Picker(n int) func() {
	p := &pool{minDown: time.Second, maxDown: time.Second}
	for i := range n {
		p.add(fmt.Sprint("server-", i), 1+i%10)
	}
	now := time.Unix(0, 0)
	return func() { p.pick(now, nil) }
}
