package flow

import "fmt"

// meant proposes the known name that is nearest to a misspelt one.
func meant(wrong string, known []string) string {
	best, distance := "", len(wrong)/3+1
	for _, name := range known {
		if n := edits(wrong, name); n <= distance {
			if n < distance || best == "" {
				best, distance = name, n
			}
		}
	}
	if best == "" || best == wrong {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// edits is the Levenshtein distance of two short names.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
