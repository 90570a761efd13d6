package flow_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/defgen"
)

// called is the flow that generated ones run.
var called = map[string]string{"called": defgen.Called}

// checkDefinitions takes every good definition of some seeds, and none of their mutations: a third of the kinds for each.
func checkDefinitions(t *testing.T, from, to uint64) {
	t.Helper()
	tools := defgen.Tools()
	tried, refused, precise := map[string]int{}, 0, 0
	for seed := from; seed < to; seed++ {
		source, broken, err := defgen.Made(seed)
		if err != nil {
			t.Fatal(err)
		}
		if faults := flow.LintBeside(source, tools, called); len(faults) > 0 {
			t.Errorf("seed %d is good and refused: %v\n%s", seed, faults, source)
			continue
		}
		for i := range broken {
			b := &broken[i]
			tried[b.Kind]++
			faults := flow.LintBeside(b.Source, tools, called)
			switch {
			case len(faults) == 0:
				t.Errorf("seed %d, %s in line %d is taken: %q", seed, b.Kind, b.Line, strings.Split(b.Source, "\n")[b.Line-1])
				continue
			case !slices.ContainsFunc(faults, b.Says):
				t.Errorf("seed %d, %s in line %d column %d is refused elsewhere: %v\n%s", seed, b.Kind, b.Line, b.Column, faults, numbered(b.Source))
				continue
			}
			refused++
			if b.Precise(faults[0]) {
				precise++
			}
		}
	}
	kinds := defgen.Kinds()
	for _, kind := range kinds {
		if tried[kind] == 0 {
			t.Errorf("%s was never tried", kind)
		}
	}
	t.Logf("%d good definitions taken, %d mutations of %d kinds refused, %d of them in the value's own columns", to-from, refused, len(kinds), precise)
}

func numbered(doc string) string {
	var b strings.Builder
	for i, line := range strings.Split(doc, "\n") {
		fmt.Fprintf(&b, "%3d %s\n", i+1, line)
	}
	return b.String()
}

// 200 good definitions are taken, and each single-point mutation of them is refused, at its place.
func TestMutationsAreRefused(t *testing.T) {
	t.Parallel()
	checkDefinitions(t, 1000, 1200)
}

// Seeds on which nothing was tuned.
func TestHeldBackMutationsAreRefused(t *testing.T) {
	t.Parallel()
	checkDefinitions(t, 900_000, 900_060)
}
