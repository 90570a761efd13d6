package bench

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// per measures what one round of do costs, in nanoseconds: do makes as many rounds as it is told. The number grows
// until they take the suite's span, so that what surrounds the measurement does not count.
func (s *suite) per(do func(rounds int) error) (float64, error) {
	for rounds := 1; ; {
		began := time.Now()
		if err := do(rounds); err != nil {
			return 0, err
		}
		took := time.Since(began)
		if took >= s.Span*3/4 || rounds >= 1<<30 {
			return float64(took.Nanoseconds()) / float64(rounds), nil
		}
		// What is missing, and a little more; never a hundred times at once.
		next := int(float64(rounds) * 1.1 * float64(s.Span) / float64(max(took, 1)))
		rounds = max(rounds+1, min(next, rounds*100))
	}
}

// each is per for work that cannot be told how often.
func (s *suite) each(do func(i int) error) (float64, error) {
	return s.per(func(rounds int) error {
		for i := range rounds {
			if err := do(i); err != nil {
				return err
			}
		}
		return nil
	})
}

// crowd is each with so many workers at once; the result is the time per round over all of them.
func (s *suite) crowd(workers int, do func(worker, i int) error) (float64, error) {
	return s.per(func(rounds int) error {
		var group errgroup.Group
		var next atomic.Int64
		for worker := range min(workers, rounds) {
			group.Go(func() error {
				for i := int(next.Add(1)); i <= rounds; i = int(next.Add(1)) {
					if err := do(worker, i); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return group.Wait()
	})
}

// durable is what it costs to append 4 KiB to a file and have the disk keep them, in nanoseconds.
func (s *suite) durable() (float64, error) {
	file, err := os.Create(filepath.Join(s.dir, "durable"))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	block := make([]byte, 4096)
	for i := range block {
		block[i] = byte(rand.Uint32())
	}
	return s.each(func(int) error {
		if _, err := file.Write(block); err != nil {
			return err
		}
		return datasync(file)
	})
}
