package sim

import (
	"os"
	"strconv"
)

// Seeds is how many seeds a test tries: the number of its own, or ZHIYUN_SEEDS where that is set, as by make sim.
func Seeds(standard int) int {
	if n, err := strconv.Atoi(os.Getenv("ZHIYUN_SEEDS")); err == nil && n > 0 {
		return n
	}
	return standard
}
