package agent_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// simulate plays one seed: instances die, hang and heal, processes tell the truth, and two of them lie about everything. It
// returns what went wrong, if anything did.
func simulate(seed uint64, bug string) error {
	random := rand.New(rand.NewPCG(seed, 1))
	n := 2 + random.IntN(8)
	c := newCourt(n)
	c.jury.Plant(bug)
	suspect := make(map[string]time.Time) // instances that did something wrong, and when last
	for range 150 {
		addr := fmt.Sprint("h:", random.IntN(n))
		switch random.IntN(8) {
		case 0:
			if c.dead[addr] = !c.dead[addr]; !c.dead[addr] {
				suspect[addr] = c.now
			}
		case 1, 2, 3:
			// Any number of processes of one user.
			c.doubtOf(10+random.IntN(6), "liars", addr, l5pb.Doubt_Kind(random.IntN(5)), random.IntN(2) == 0)
		case 4, 5:
			if honest := 3 + random.IntN(3); c.dead[addr] {
				suspect[addr] = c.now
				c.doubt(honest, addr, refusedKind, random.IntN(2) == 0)
				if !strings.Contains(fmt.Sprint(c.downs()), addr) && 2*(len(c.downs())+1) <= n && c.probed[addr] == 0 {
					return fmt.Errorf("%s is dead, doubted by an honest process, and neither down nor probed", addr)
				}
			}
		default:
			c.sleep(time.Duration(50+random.IntN(1500)) * time.Millisecond)
		}
		taken := 0
		for _, d := range c.jury.Downs() {
			if !strings.Contains(d.GetReason(), "on trial") {
				taken++
			}
			if _, ok := suspect[d.GetAddr()]; !ok && !c.dead[d.GetAddr()] {
				return fmt.Errorf("%s never did anything wrong and is down: %s", d.GetAddr(), d.GetReason())
			}
		}
		if 2*taken > n {
			return fmt.Errorf("I2: %d of %d are down", taken, n)
		}
	}
	clear(c.dead)
	c.sleep(65 * time.Second) // the longest ejection, and a trial
	if downs := c.downs(); len(downs) > 0 {
		return fmt.Errorf("healed for 65 s, and down are %v", downs)
	}
	return nil
}

func TestJurySimulation(t *testing.T) {
	t.Parallel()
	seeds, err := strconv.Atoi(os.Getenv("ZHIYUN_SEEDS"))
	if err != nil {
		seeds = 200
	}
	for seed := range seeds {
		if err := simulate(uint64(seed), ""); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestJurySimulationFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, bug := range []string{"one word is believed", "nothing is kept", "processes of one party count"} {
		found := false
		for seed := range 100 {
			if err := simulate(uint64(seed), bug); err != nil {
				t.Logf("%s: seed %d: %v", bug, seed, err)
				found = true
				break
			}
		}
		if !found {
			t.Errorf("%s: not found in 100 seeds", bug)
		}
	}
}
