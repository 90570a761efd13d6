package shelf

import (
	"cmp"
	"slices"
	"strings"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Query selects tools. The zero query selects all.
type Query struct {
	Words []string // each is found in the name, the title, the stage or a tag; small and capital letters are the same
	Stage string
	Tag   string
}

// Search returns the manifests that a query selects: those first whose names have the words, each part by name.
func Search(all []flow.Manifest, q Query) []flow.Manifest {
	type match struct {
		flow.Manifest
		rank int // words that the name does not have
	}
	found := []match{}
	for _, m := range all {
		if q.Stage != "" && m.Stage != q.Stage || q.Tag != "" && !slices.Contains(m.Tags, q.Tag) {
			continue
		}
		name := strings.ToLower(m.Name)
		text := strings.ToLower(strings.Join(append([]string{m.Name, m.Title, m.Stage}, m.Tags...), "\n"))
		one, all := match{Manifest: m}, true
		for _, word := range q.Words {
			word = strings.ToLower(word)
			all = all && strings.Contains(text, word)
			if !strings.Contains(name, word) {
				one.rank++
			}
		}
		if all {
			found = append(found, one)
		}
	}
	slices.SortStableFunc(found, func(a, b match) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.Name, b.Name)) })
	out := make([]flow.Manifest, len(found))
	for i, m := range found {
		out[i] = m.Manifest
	}
	return out
}
