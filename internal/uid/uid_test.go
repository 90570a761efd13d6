package uid_test

import (
	"regexp"
	"slices"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/uid"
)

var form = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func TestNewIsNeverMadeTwice(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 10_000 {
		one := uid.New()
		if !form.MatchString(one) || seen[one] {
			t.Fatalf("%q: seen before: %v", one, seen[one])
		}
		seen[one] = true
	}
}

func TestOrderedSortsByTime(t *testing.T) {
	t.Parallel()
	var all []string
	for range 10_000 {
		one, err := uid.Ordered()
		if err != nil {
			t.Fatal(err)
		}
		if !form.MatchString(one) {
			t.Fatalf("%q has another form", one)
		}
		all = append(all, one)
	}
	if !slices.IsSorted(all) || len(slices.Compact(slices.Clone(all))) != len(all) {
		t.Error("they are not strictly ascending")
	}
}
