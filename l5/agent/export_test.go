package agent

import (
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// Jury is a jury for tests of the pure core.
type Jury struct{ jury *jury }

func NewJury(config balance.Config) Jury { return Jury{newJury(config)} }

// Plant makes the jury wrong.
func (j Jury) Plant(bug string) { j.jury.plantedBug = bug }

func (j Jury) Replace(now time.Time, members balance.Members) (probes []string) {
	return j.jury.replace(now, members).probes
}

func (j Jury) Doubt(now time.Time, process int, d *l5pb.Doubt) (probes []string) {
	return j.jury.doubt(now, process, d).probes
}

func (j Jury) Probed(now time.Time, addr string, err error) (probes []string) {
	return j.jury.probed(now, addr, err).probes
}

func (j Jury) Tick(now time.Time) (probes []string) { return j.jury.tick(now).probes }

func (j Jury) Downs() []*l5pb.Down { return j.jury.downs() }

func (j Jury) Idle(now time.Time) bool { return j.jury.idle(now) }
