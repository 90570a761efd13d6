package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// LoadConfig says what a server is to load.
type LoadConfig struct {
	Instances, Services int
	// Dir keeps the records in an etcd member between the process that writes them and the one that loads them. Empty:
	// one process does both, in memory.
	Dir string
}

// LoadFigures are a server's start.
type LoadFigures struct {
	Load     time.Duration // from New until it is ready
	List     time.Duration // what it takes to read the records and throw them away
	Records  int64         // their bytes
	Resident int64         // bytes of the process, store included, when ready
	Settled  int64         // the same after a collection
	Heap     int64         // of Settled, what is reachable
}

// Load fills a store, starts a server over it in a process of its own, and weighs that.
func Load(ctx context.Context, config LoadConfig) (out LoadFigures, err error) {
	fill := order{Do: "fill", Dir: config.Dir, Instances: config.Instances, Services: config.Services}
	host, err := start(ctx, "host")
	if err != nil {
		return out, err
	}
	defer func() { host.kill() }()
	if _, err := host.tell(fill); err != nil {
		return out, err
	}
	if config.Dir != "" {
		if err := host.end(); err != nil {
			return out, err
		}
		if host, err = start(ctx, "host"); err != nil {
			return out, err
		}
	}
	served, err := host.tell(order{Do: "serve", Dir: config.Dir})
	if err != nil {
		return out, err
	}
	settled, err := host.tell(order{Do: "weigh"})
	return LoadFigures{Load: served.Took, List: served.Floor, Records: served.Bytes, Resident: served.RSS, Settled: settled.RSS, Heap: settled.Heap}, err
}

// ReportsFigures are what reports of outcomes cost a server.
type ReportsFigures struct {
	PerSecond float64
	CPU       time.Duration // of the server, per report
}

// Reports lets crowds report outcomes at a pace for a while: one report is one process's outcome of one instance.
func Reports(ctx context.Context, perSecond int, span time.Duration) (out ReportsFigures, err error) {
	r := &run{config: StreamsConfig{Streams: 1}, ctx: ctx}
	defer func() {
		for _, c := range r.crowds {
			c.kill()
		}
		if r.host != nil {
			r.host.kill()
		}
	}()
	if err := r.open(nil); err != nil {
		return out, err
	}
	crowd, err := start(ctx, "crowd")
	if err != nil {
		return out, err
	}
	r.crowds = append(r.crowds, crowd)
	const each = 10 // outcomes in a batch
	before, err := r.host.tell(order{Do: "reports"})
	if err != nil {
		return out, err
	}
	n := int(span.Seconds()*float64(perSecond)/each/50) * 50
	sent, err := crowd.tell(order{Do: "report", Targets: []string{r.served.Target}, N: n, Size: each, Gap: each * time.Second / time.Duration(perSecond)})
	if err != nil {
		return out, err
	}
	after, err := r.host.tell(order{Do: "reports"})
	if err != nil {
		return out, err
	}
	got := after.Counts.Reports - before.Counts.Reports
	if got != int64(n*each) {
		return out, fmt.Errorf("fleet: %d of %d outcomes arrived", got, n*each)
	}
	return ReportsFigures{PerSecond: float64(got) / sent.Took.Seconds(), CPU: (after.CPU - before.CPU) / time.Duration(got)}, nil
}

// StreamsConfig says who watches.
type StreamsConfig struct {
	Streams int // all together; required
	Crowds  int // processes that they are in; default 2
	Changes int // that are pushed; default 20
	// Agents between the server and the streams, each with its share of them; 0: the streams are the server's own.
	Agents int
	// Bare measures a bare socket's fan-out beside it.
	Bare bool
	// Restart kills the server after the changes and starts it again on the same address.
	Restart bool
	// Dir is for sockets of agents, and for the store of a server that is to restart; required for these.
	Dir string
}

// StreamsFigures are what was measured.
type StreamsFigures struct {
	PerStream        int64 // bytes of the server's memory
	PerBare          int64 // the same for a bare socket with a goroutine that reads from it
	Push, BarePush   Spread
	PushCPU, BareCPU time.Duration // of the server, per message
	PushAll, BareAll time.Duration // of all processes, per message: busy machines change this less than what they delay
	Back             time.Duration // after the restart, until all streams were open again
	Peak             int64         // of streams opened in 100 ms after the restart
	Snapshots        int64         // sent after the restart
}

// Spread is a distribution of durations.
type Spread struct{ P50, P99, Max time.Duration }

// Streams starts a server and its crowds, and measures.
func Streams(ctx context.Context, config StreamsConfig) (out StreamsFigures, err error) {
	if config.Streams < 1 || (config.Agents > 0 || config.Restart) && config.Dir == "" {
		return out, errors.New("fleet: Streams must be positive, and Dir set for Agents and Restart")
	}
	if config.Crowds == 0 {
		config.Crowds = 2
	}
	if config.Changes == 0 {
		config.Changes = 20
	}
	r := &run{config: config, ctx: ctx}
	defer func() {
		for _, c := range append(r.crowds, r.bare...) {
			c.kill()
		}
		if r.host != nil {
			r.host.kill()
		}
	}()
	for _, step := range []func(*StreamsFigures) error{r.open, r.fan, r.watch, r.push, r.restart} {
		if err := step(&out); err != nil {
			return out, err
		}
	}
	return out, nil
}

// run is one measurement under way.
type run struct {
	config StreamsConfig
	ctx    context.Context
	host   *child
	served report
	crowds []*child
	bare   []*child
}

func (r *run) storeDir() string {
	if r.config.Restart {
		return r.config.Dir + "/etcd"
	}
	return ""
}

// open starts the server.
func (r *run) open(*StreamsFigures) (err error) {
	if r.host, err = start(r.ctx, "host"); err != nil {
		return err
	}
	if _, err = r.host.tell(order{Do: "fill", Dir: r.storeDir(), Services: 1}); err != nil {
		return err
	}
	r.served, err = r.host.tell(order{Do: "serve", Dir: r.storeDir()})
	return err
}

// join starts processes whose members do what is said, all together config.Streams.
func (r *run) join(do string, targets func(i int) []string) (crowds []*child, err error) {
	each := (r.config.Streams + r.config.Crowds - 1) / r.config.Crowds
	for i := range r.config.Crowds {
		c, err := start(r.ctx, "crowd")
		if err != nil {
			return crowds, err
		}
		crowds = append(crowds, c)
		if err := c.give(order{Do: do, Targets: targets(i), First: i * each, N: min(each, r.config.Streams-i*each)}); err != nil {
			return crowds, err
		}
	}
	return crowds, hearAll(crowds)
}

func hearAll(crowds []*child) error {
	for _, c := range crowds {
		if _, err := c.hear(); err != nil {
			return err
		}
	}
	return nil
}

// watch opens the streams and weighs the server before and after.
func (r *run) watch(out *StreamsFigures) error {
	targets := func(int) []string { return []string{r.served.Target} }
	if r.config.Agents > 0 {
		keeper, err := start(r.ctx, "crowd")
		if err != nil {
			return err
		}
		r.bare = append(r.bare, keeper)
		made, err := keeper.tell(order{Do: "agents", Targets: []string{r.served.Target}, N: r.config.Agents, Dir: r.config.Dir})
		if err != nil {
			return err
		}
		targets = func(i int) []string { return append(made.Targets[i:], made.Targets[:i]...) }
	}
	before, err := r.host.tell(order{Do: "weigh"})
	if err != nil {
		return err
	}
	if r.crowds, err = r.join("watch", targets); err != nil {
		return err
	}
	after, err := r.host.tell(order{Do: "weigh"})
	out.PerStream = (after.RSS - before.RSS) / int64(max(1, r.config.Streams))
	return err
}

// gap is how long a change has to arrive everywhere.
func (r *run) gap() time.Duration {
	return 30*time.Millisecond + time.Duration(r.config.Streams)*100*time.Microsecond
}

// push changes the share and collects arrivals.
func (r *run) push(out *StreamsFigures) error {
	others := slices.Concat(r.bare, r.crowds) // bare are the agents by now
	before, err := spent(others)
	if err != nil {
		return err
	}
	began, err := r.host.tell(order{Do: "change", N: r.config.Changes, Gap: r.gap()})
	if err != nil {
		return err
	}
	out.PushCPU = began.CPU / r.messages()
	if out.Push, err = r.heard(r.crowds, began.Times[0]); err != nil {
		return err
	}
	after, err := spent(others)
	out.PushAll = (began.CPU + after - before) / r.messages()
	return err
}

// messages is how many arrive when each stream is told of each change.
func (r *run) messages() time.Duration { return time.Duration(r.config.Changes * r.config.Streams) }

// spent is the processor time of crowds.
func spent(crowds []*child) (sum time.Duration, err error) {
	for _, c := range crowds {
		got, err := c.tell(order{Do: "count"})
		if err != nil {
			return sum, err
		}
		sum += got.CPU
	}
	return sum, nil
}

// fan does the same over bare sockets.
func (r *run) fan(out *StreamsFigures) error {
	if !r.config.Bare {
		return nil
	}
	before, err := r.host.tell(order{Do: "weigh"})
	if err != nil {
		return err
	}
	listening, err := r.join("listen", func(int) []string { return []string{r.served.Raw} })
	r.bare = listening
	if err != nil {
		return err
	}
	after, err := r.host.tell(order{Do: "weigh"})
	if err != nil {
		return err
	}
	out.PerBare = (after.RSS - before.RSS) / int64(r.config.Streams)
	idle, err := spent(listening)
	if err != nil {
		return err
	}
	began, err := r.host.tell(order{Do: "fan", N: r.config.Changes, Size: 160, Gap: r.gap()})
	if err != nil {
		return err
	}
	out.BareCPU = began.CPU / r.messages()
	if out.BarePush, err = r.heard(listening, began.Times[0]); err != nil {
		return err
	}
	busy, err := spent(listening)
	if err != nil {
		return err
	}
	out.BareAll = (began.CPU + busy - idle) / r.messages()
	for _, c := range listening {
		c.kill()
	}
	r.bare = nil
	_, err = r.host.tell(order{Do: "hang up"}) // a process has too few files for both
	return err
}

// heard returns how long after began the messages arrived.
func (r *run) heard(crowds []*child, began []int64) (Spread, error) {
	deadline := time.Now().Add(30 * time.Second)
	all := make([][]int64, 0, r.config.Streams)
	for _, c := range crowds {
		var times [][]int64
		for {
			got, err := c.tell(order{Do: "heard"})
			if err != nil {
				return Spread{}, err
			}
			missing := 0
			for i, t := range got.Times {
				if i == len(times) {
					times = append(times, nil)
				}
				times[i] = append(times[i], t...)
				missing += max(0, len(began)-len(times[i]))
			}
			if missing == 0 {
				break
			}
			if time.Now().After(deadline) {
				return Spread{}, fmt.Errorf("fleet: %d messages did not arrive", missing)
			}
			time.Sleep(50 * time.Millisecond)
		}
		all = append(all, times...)
	}
	var took []time.Duration
	for _, times := range all {
		for i, at := range times[:len(began)] {
			took = append(took, time.Duration(at-began[i]))
		}
	}
	return spread(took), nil
}

func spread(took []time.Duration) Spread {
	slices.Sort(took)
	return Spread{P50: took[len(took)/2], P99: took[len(took)*99/100], Max: took[len(took)-1]}
}

func (r *run) count() (sum counts, err error) {
	for _, c := range r.crowds {
		got, err := c.tell(order{Do: "count"})
		if err != nil {
			return sum, err
		}
		sum.Streams += got.Counts.Streams
		sum.Snapshots += got.Counts.Snapshots
		sum.Opened += got.Counts.Opened
	}
	return sum, nil
}

// restart kills the server and starts another on its address, over its store.
func (r *run) restart(out *StreamsFigures) error {
	if !r.config.Restart {
		return nil
	}
	before, err := r.count()
	if err != nil {
		return err
	}
	r.host.kill()
	if r.host, err = start(r.ctx, "host"); err != nil {
		return err
	}
	var port int
	if _, err := fmt.Sscanf(r.served.Target, "http://127.0.0.1:%d", &port); err != nil {
		return err
	}
	if _, err := r.host.tell(order{Do: "serve", Dir: r.storeDir(), First: port}); err != nil {
		return err
	}
	began, last := time.Now(), before.Opened
	for {
		now, err := r.count()
		if err != nil {
			return err
		}
		out.Peak, last = max(out.Peak, now.Opened-last), now.Opened
		out.Snapshots = now.Snapshots - before.Snapshots
		if now.Streams == before.Streams && now.Opened >= before.Opened+before.Streams {
			break
		}
		if time.Since(began) > time.Minute {
			return fmt.Errorf("fleet: %d of %d streams came back", now.Streams, before.Streams)
		}
		time.Sleep(100 * time.Millisecond)
	}
	out.Back = time.Since(began)
	return nil
}

// Dir makes a folder with a short path, as sockets need it.
func Dir() (string, func(), error) {
	dir, err := os.MkdirTemp("", "zf")
	return dir, func() { os.RemoveAll(dir) }, err
}
