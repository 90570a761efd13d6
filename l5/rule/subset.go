package rule

import (
	"cmp"
	"slices"
)

// rendezvous is the score of an instance for a process: each process ranks all instances by a hash of the pair, and
// calls those that rank highest (D. Thaler, C. Ravishankar, "Using name-based mappings to increase hit rates", 1998; for
// subsets as in gRPC's proposal A68). Processes need not know of one another. An instance that comes or goes changes a
// subset by at most one member, and how many processes an instance is called by has the binomial distribution: with m
// processes and subsets of k among n, m*k/n on the average with a standard deviation of less than sqrt(m*k/n).
func rendezvous(seed uint64, addr string) uint64 {
	h := uint64(14695981039346656037) // FNV-1a, finished by a mix of all bits: its high ones are weak
	for i := range len(addr) {
		h = (h ^ uint64(addr[i])) * 1099511628211
	}
	return mix(h ^ mix(seed))
}

// mix is the finisher of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// rank orders the indexes of members by their score for seed, the highest first.
func rank(seed uint64, indexes []int32, members []Member) {
	scores := make(map[int32]uint64, len(indexes))
	for _, i := range indexes {
		scores[i] = rendezvous(seed, members[i].Addr)
	}
	slices.SortFunc(indexes, func(a, b int32) int {
		if c := cmp.Compare(scores[b], scores[a]); c != 0 {
			return c
		}
		return cmp.Compare(members[a].Addr, members[b].Addr)
	})
}
