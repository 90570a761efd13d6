package view

// VerdictSum tells verdicts apart, for Subscription.verdict: who has the one that stands need not be told again. It is never 0,
// which says that there is none.
func VerdictSum(allowed bool, reason string) uint64 {
	const prime = 1099511628211
	h := uint64(14695981039346656037) // FNV-1a
	if allowed {
		h ^= 1
	}
	h *= prime
	for i := range len(reason) {
		h = (h ^ uint64(reason[i])) * prime
	}
	return max(h, 1)
}
