// Command scale shows package scale on a recorded evening: what Decide would have done, minute by minute, and on
// which devices. It acts on nothing: numbers in, decisions with reasons out.
//
//	go run ./examples/scale
package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/zhiyun-ops/zhiyun/scale"
)

func main() { run(os.Stdout) }

// evening is load in requests per second: quiet, a burst at 20:00 that triples it, quiet again, and a recorder that
// stops at 21:30.
func evening(at time.Time) (rate float64, valid bool) {
	rate = 190 + 20*math.Sin(float64(at.Unix())/600)
	switch minute := at.Hour()*60 + at.Minute(); {
	case minute >= 21*60+30:
		return 0, false
	case minute >= 20*60 && minute < 20*60+30:
		return 3 * rate, true
	}
	return rate, true
}

// serveAfter is how long a device takes from its order to full weight.
const serveAfter = 3 * time.Minute

func run(out io.Writer) {
	capacity := map[string]float64{"small": 100, "large": 250}
	module := scale.Module{
		Name: "shop.cart", Min: 3, Max: 20, Capacity: capacity,
		Policy: scale.Policy{Target: 0.7},
	}
	home := scale.Prefs{Cities: []string{"shenzhen"}, Sites: []string{"sz1"}, Types: []string{"small", "large"}}
	var idle []scale.Candidate
	for i := range 9 {
		c := scale.Candidate{Name: fmt.Sprintf("device-%d", i), City: "shenzhen", Site: "sz1", Type: "small"}
		switch {
		case i < 3:
			module.Serving = append(module.Serving, scale.Device{Name: c.Name, City: c.City, Site: c.Site, Type: c.Type, Share: 100})
			continue
		case i >= 6:
			c.Site, c.Type = "sz2", "large"
		}
		idle = append(idle, c)
	}
	start := time.Date(2026, 11, 22, 19, 30, 0, 0, time.UTC)
	var history scale.History
	var due time.Time
	last := ""
	for now := start; now.Before(start.Add(150 * time.Minute)); now = now.Add(10 * time.Second) {
		if len(module.Pending) > 0 && !now.Before(due) {
			for _, d := range module.Pending {
				d.Since, d.Share = now, 100
				module.Serving = append(module.Serving, d)
			}
			module.Pending = nil
		}
		d := scale.Decide(now, module, history)
		if line := fmt.Sprintf("%s  %d -> %d  %s", now.Format("15:04"), d.Have, d.Want, d.Reason.Code); d.Delta != 0 || d.Reason.Code != last {
			fmt.Fprintln(out, line)
			last = d.Reason.Code
		}
		switch {
		case d.Delta > 0:
			placed := scale.Place(d.Shortage, idle, capacity, home, 0)
			for _, c := range placed.Picked {
				fmt.Fprintf(out, "         + %s (%s, %s)\n", c.Name, c.Site, c.Type)
				module.Pending = append(module.Pending, scale.Device{Name: c.Name, City: c.City, Site: c.Site, Type: c.Type})
			}
			idle = without(idle, placed.Picked)
			module.LastOut, due = now, now.Add(serveAfter)
		case d.Delta < 0:
			for _, leaving := range scale.Leave(d.Keep, module.Min, -d.Delta, module.Serving, capacity, home) {
				fmt.Fprintf(out, "         - %s (%s, %s)\n", leaving.Name, leaving.Site, leaving.Type)
				module.Serving = remove(module.Serving, leaving.Name)
				idle = append(idle, scale.Candidate{Name: leaving.Name, City: leaving.City, Site: leaving.Site, Type: leaving.Type})
			}
			module.LastIn = now
		}
		rate, valid := evening(now)
		history = append(history, scale.Sample{At: now, Rate: rate, Valid: valid})
	}
}

func without(idle, picked []scale.Candidate) []scale.Candidate {
	var left []scale.Candidate
	for _, c := range idle {
		taken := false
		for _, p := range picked {
			taken = taken || p.Name == c.Name
		}
		if !taken {
			left = append(left, c)
		}
	}
	return left
}

func remove(devices []scale.Device, name string) []scale.Device {
	var left []scale.Device
	for _, d := range devices {
		if d.Name != name {
			left = append(left, d)
		}
	}
	return left
}
