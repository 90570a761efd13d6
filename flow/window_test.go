package flow

import (
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		window Window
		now    string // RFC3339
		want   string // when it is open first
	}{
		"inside":                    {Window{From: "01:00", To: "05:00"}, "2026-03-10T01:00:00Z", "2026-03-10T01:00:00Z"},
		"inside to the last minute": {Window{From: "01:00", To: "05:00"}, "2026-03-10T04:59:59Z", "2026-03-10T04:59:59Z"},
		"just closed":               {Window{From: "01:00", To: "05:00"}, "2026-03-10T05:00:00Z", "2026-03-11T01:00:00Z"},
		"before":                    {Window{From: "01:00", To: "05:00"}, "2026-03-10T00:30:12Z", "2026-03-10T01:00:00Z"},
		"elsewhere":                 {Window{From: "01:00", To: "05:00", Zone: "Asia/Shanghai"}, "2026-03-10T12:00:00Z", "2026-03-10T17:00:00Z"},
		"over midnight, before it":  {Window{Days: []string{"fri"}, From: "22:00", To: "02:00"}, "2026-03-13T23:00:00Z", "2026-03-13T23:00:00Z"},
		"over midnight, behind it":  {Window{Days: []string{"fri"}, From: "22:00", To: "02:00"}, "2026-03-14T01:59:00Z", "2026-03-14T01:59:00Z"},
		"over midnight, closed":     {Window{Days: []string{"fri"}, From: "22:00", To: "02:00"}, "2026-03-14T02:00:00Z", "2026-03-20T22:00:00Z"},
		"the wrong night":           {Window{Days: []string{"fri"}, From: "22:00", To: "02:00"}, "2026-03-13T01:00:00Z", "2026-03-13T22:00:00Z"},
		"until midnight":            {Window{Days: []string{"sun"}, From: "20:00", To: "24:00"}, "2026-03-16T00:00:00Z", "2026-03-22T20:00:00Z"},
		"a whole day":               {Window{Days: []string{"sun"}, From: "06:00", To: "06:00"}, "2026-03-16T05:00:00Z", "2026-03-16T05:00:00Z"},
		// In Berlin 02:00 became 03:00 on 2026-03-29 (01:00 UTC), and 03:00 became 02:00 on 2026-10-25 (01:00 UTC).
		"opens in the hour left out":                          {Window{From: "02:30", To: "05:00", Zone: "Europe/Berlin"}, "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"},
		"lies in the hour left out":                           {Window{From: "02:15", To: "02:45", Zone: "Europe/Berlin"}, "2026-03-29T00:00:00Z", "2026-03-30T00:15:00Z"},
		"opens after the hour left out":                       {Window{From: "04:00", To: "05:00", Zone: "Europe/Berlin"}, "2026-03-29T00:00:00Z", "2026-03-29T02:00:00Z"},
		"spring, closed, next day":                            {Window{From: "01:00", To: "01:30", Zone: "Europe/Berlin"}, "2026-03-29T00:30:00Z", "2026-03-29T23:00:00Z"},
		"in the hour that comes twice":                        {Window{From: "02:00", To: "02:30", Zone: "Europe/Berlin"}, "2026-10-25T00:10:00Z", "2026-10-25T00:10:00Z"},
		"in the hour that comes twice again":                  {Window{From: "02:00", To: "02:30", Zone: "Europe/Berlin"}, "2026-10-25T00:40:00Z", "2026-10-25T01:00:00Z"},
		"autumn, after":                                       {Window{From: "04:00", To: "05:00", Zone: "Europe/Berlin"}, "2026-10-25T00:10:00Z", "2026-10-25T03:00:00Z"},
		"the last day of a leap year beyond the zone's table": {Window{From: "12:00", To: "13:00", Zone: "Europe/Berlin"}, "2040-12-31T12:30:00Z", "2041-01-01T11:00:00Z"},
		"that day, before":                                    {Window{From: "12:00", To: "13:00", Zone: "Europe/Berlin"}, "2040-12-31T02:00:00Z", "2040-12-31T11:00:00Z"},
		"midnight left out":                                   {Window{Days: []string{"sun"}, From: "00:15", To: "02:00", Zone: "America/Asuncion"}, "2023-10-01T02:00:00Z", "2023-10-01T04:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, err := parseWindow(&c.window)
			if err != nil {
				t.Fatal(err)
			}
			now, err := time.Parse(time.RFC3339, c.now)
			if err != nil {
				t.Fatal(err)
			}
			got := w.opens(now)
			if got.Format(time.RFC3339) != c.want {
				t.Errorf("open from %s, want %s", got.Format(time.RFC3339), c.want)
			}
			// What it is held to: open at that instant, and at no minute before.
			if !w.inside(got) {
				t.Error("it is not open then")
			}
			for at := now; at.Before(got); at = at.Add(time.Minute) {
				if w.inside(at) {
					t.Fatalf("it is open at %s already", at)
				}
			}
		})
	}
}

func TestWindowFaults(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]Window{
		"day":     {Days: []string{"monday"}, From: "01:00", To: "02:00"},
		"twice":   {Days: []string{"mon", "mon"}, From: "01:00", To: "02:00"},
		"no from": {To: "02:00"},
		"from":    {From: "1:00", To: "02:00"},
		"to":      {From: "01:00", To: "25:00"},
		"zone":    {From: "01:00", To: "02:00", Zone: "Moon/Base"},
		"local":   {From: "01:00", To: "02:00", Zone: "Local"},
	} {
		if _, err := parseWindow(&w); err == nil {
			t.Errorf("%s: no fault in %+v", name, w)
		}
	}
}
