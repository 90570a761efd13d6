package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/internal/link"
	"github.com/zhiyun-ops/zhiyun/l5/internal/table"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// SetClock has an agent that is made of c tell the time by now.
func SetClock(c *Config, now func() time.Time) { c.now = now }

// Jury is a jury for tests of the pure core.
type Jury struct{ jury *jury }

func NewJury(config balance.Config) Jury { return Jury{newJury(config)} }

// Plant makes the jury wrong.
func (j Jury) Plant(bug string) { j.jury.plantedBug = bug }

func (j Jury) Replace(now time.Time, members balance.Members) (probes []string) {
	return j.jury.replace(now, members).probes
}

// Doubt is of a process that is the only one of its party, among others.
func (j Jury) Doubt(now time.Time, process int, d *l5pb.Doubt) (probes []string) {
	return j.DoubtOf(now, process, strconv.Itoa(process), 5, d)
}

// DoubtOf is of a process of a party, of so many that call.
func (j Jury) DoubtOf(now time.Time, process int, party string, parties int, d *l5pb.Doubt) (probes []string) {
	return j.jury.doubt(now, juror{process, party}, parties, d).probes
}

func (j Jury) Probed(now time.Time, addr string, err error) (probes []string) {
	return j.jury.probed(now, addr, err).probes
}

func (j Jury) Tick(now time.Time) (probes []string) { return j.jury.tick(now).probes }

func (j Jury) Downs() []*l5pb.Down { return j.jury.downs() }

func (j Jury) Idle(now time.Time) bool { return j.jury.idle(now) }

// Hush is a hush for tests.
type Hush struct{ hush hush }

// Say reports whether to say it now, and how often it was not said.
func (h *Hush) Say(now time.Time, key string) (kept int, ok bool) { return h.hush.say(now, key) }

// Callers are callers for tests; their link has no peer.
type Callers struct {
	callers *callers
	link    *link.Link
}

// NewCallers returns callers of a link that calls onForget as an agent's does.
func NewCallers(onForget func(service string)) Callers {
	l := link.New(link.Config{OnView: func(view.View, *l5pb.Delta) {}, OnForget: onForget})
	return Callers{newCallers(l, time.Second, time.Now), l}
}

func (c Callers) Ask(caller, service string) { c.callers.ask(caller, service) }

func (c Callers) Release(caller, service string, now time.Time) {
	c.callers.release(caller, service, now)
}

func (c Callers) Sweep(now time.Time) { c.callers.sweep(now) }

// Wanted returns what the link is subscribed to.
func (c Callers) Wanted() (services []string) {
	for _, s := range c.link.Hello().GetSubscribe() {
		services = append(services, s.GetService())
	}
	return services
}

// Shelf is a shelf for tests.
type Shelf struct{ shelf *shelf }

func NewShelf(logger *slog.Logger) Shelf { return Shelf{newShelf(logger)} }

func (s Shelf) Put(v view.View)                         { s.shelf.Put(v) }
func (s Shelf) Drop(service string)                     { s.shelf.Drop(service) }
func (s Shelf) View(service string) (view.View, bool)   { return s.shelf.View(service) }
func (s Shelf) At(service string) (string, int64, bool) { return s.shelf.At(service) }
func (s Shelf) Lost() []string                          { return s.shelf.takeLost() }
func (s Shelf) Close()                                  { s.shelf.close() }
func (s Shelf) Load(folder string, segment int) error {
	_, err := s.shelf.load(folder, segment)
	return err
}

// Write writes a segment as the agent does, with one caller of everything.
func (s Shelf) Write(folder string, segment int) error {
	views := s.shelf.views(segment)
	var content []byte
	if len(views) > 0 {
		var entries []table.Entry
		for _, v := range views {
			entries = append(entries, table.Entry{View: v, Callers: []string{"test.caller"}})
		}
		var err error
		if content, err = table.Encode(table.Head{Segment: segment}, entries); err != nil {
			return err
		}
	}
	file := filepath.Join(folder, fmt.Sprintf("%02x.routes", segment)) // without waiting for the disk, as table.Write does
	if content == nil {
		os.Remove(file)
	} else if err := errors.Join(os.WriteFile(file+".new", content, 0o400), os.Rename(file+".new", file)); err != nil {
		return err
	}
	return s.shelf.written(folder, segment, views)
}

// InMemory returns of how many services the state is not read from the table.
func (s Shelf) InMemory() (n int) {
	for i := range s.shelf.compartments {
		c := &s.shelf.compartments[i]
		c.mu.Lock()
		for _, state := range c.states {
			if state.view != nil {
				n++
			}
		}
		c.mu.Unlock()
	}
	return n
}

// ShelfOf returns an agent's.
func ShelfOf(a *Agent) Shelf { return Shelf{a.shelf} }
