// Package bench measures the packages on the machine it runs on, each beside a floor: what the same work costs at the
// least, with nothing of ours in the way. Ratios travel between machines; absolute figures do not.
//
//	rows, err := bench.Run(ctx, bench.Config{Packages: []string{"l5"}})
//
// The name service and flows are measured with processes of their own, which are the calling program, started again: it must
// call fleet.Main and flowbench.Main before it does anything else.
//
// A row's Ratio is ours by the floor where smaller is better, and the floor by ours where larger is: so 1 is the floor
// itself, and more is what we cost.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Row is one measurement.
type Row struct {
	Name    string  `json:"name"`    // package.what
	Value   float64 `json:"value"`   // ours
	Unit    string  `json:"unit"`    // of Value and Floor
	Floor   float64 `json:"floor"`   // the same unit
	Against string  `json:"against"` // what the floor is
	Ratio   float64 `json:"ratio"`   // 1: as cheap as the floor
}

// Config says what to measure. A zero field means its default.
type Config struct {
	// Packages to measure, of Packages(). Default: all.
	Packages []string
	// Span is for how long each figure is measured. Default 300 ms.
	Span time.Duration
	// Part is the share of the deck's scale (161,679 instances and devices, 12,740 services and modules) that tables are
	// filled with, 0 to 1. Default 1.
	Part float64
	// Long measures at full scale what takes minutes: 10,000 streams in place of 1,000.
	Long bool
	// Dir is where files are written; it decides which disk is measured. Default: a new temporary folder.
	Dir string
	// DSN is a PostgreSQL server, as a postgres:// URL, on which flows are measured, in schemas that are dropped. Default: SQLite, in Dir.
	DSN string
	// Progress is told what is measured next. It may be nil.
	Progress func(what string)
}

// The deck's scale.
const (
	deckInstances = 161_679
	deckServices  = 12_740
)

// suite is one run.
type suite struct {
	Config
	dir  string
	rows []Row
}

var packages = []struct {
	name    string
	measure func(*suite, context.Context) error
}{
	{"state", (*suite).state}, {"l5", (*suite).l5}, {"flow", (*suite).flow}, {"tool", (*suite).tool}, {"cmdb", (*suite).cmdb},
	{"gray", (*suite).gray}, {"scale", (*suite).scale}, {"drift", (*suite).drift},
}

// Packages are the names that Config.Packages may hold.
func Packages() []string {
	names := make([]string, len(packages))
	for i, p := range packages {
		names[i] = p.name
	}
	return names
}

// Run measures, and returns the rows that it got even if a later one fails.
func Run(ctx context.Context, config Config) ([]Row, error) {
	var faults []error
	for _, name := range config.Packages {
		if !slices.Contains(Packages(), name) {
			faults = append(faults, fmt.Errorf("bench: package %q: want one of %s", name, strings.Join(Packages(), ", ")))
		}
	}
	if config.Part < 0 || config.Part > 1 {
		faults = append(faults, fmt.Errorf("bench: Part %v: want more than 0, at most 1", config.Part))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if config.Span <= 0 {
		config.Span = 300 * time.Millisecond
	}
	if config.Part == 0 {
		config.Part = 1
	}
	if config.Progress == nil {
		config.Progress = func(string) {}
	}
	dir, err := os.MkdirTemp(config.Dir, "zb")
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer os.RemoveAll(dir)
	s := &suite{Config: config, dir: dir}
	for _, p := range packages {
		if len(config.Packages) > 0 && !slices.Contains(config.Packages, p.name) {
			continue
		}
		if err := p.measure(s, ctx); err != nil {
			return s.rows, fmt.Errorf("bench: %s: %w", p.name, err)
		}
		if err := ctx.Err(); err != nil {
			return s.rows, err
		}
	}
	return s.rows, nil
}

// scaled is n at the part of the deck's scale, at least 100.
func (s *suite) scaled(n int) int { return max(100, int(float64(n)*s.Part)) }

// add keeps a row of which less is better.
func (s *suite) add(name string, value float64, unit string, floor float64, against string) {
	s.rows = append(s.rows, Row{Name: name, Value: value, Unit: unit, Floor: floor, Against: against, Ratio: value / floor})
}

// addRate keeps a row of which more is better.
func (s *suite) addRate(name string, value float64, unit string, floor float64, against string) {
	s.rows = append(s.rows, Row{Name: name, Value: value, Unit: unit, Floor: floor, Against: against, Ratio: floor / value})
}
