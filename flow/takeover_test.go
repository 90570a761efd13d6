package flow_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/pgstore"
	"github.com/zhiyun-ops/zhiyun/internal/pgtest"
)

const takeoverSteps = 5

// takeoverFlow has steps that take a moment. Their tool's effect is a line in a file.
func takeoverFlow() string {
	var b strings.Builder
	b.WriteString("flow: work\nparams: {n: int}\nsteps:\n")
	for i := range takeoverSteps {
		fmt.Fprintf(&b, "  - {name: s%d, tool: work, with: {step: %d}}\n", i, i)
	}
	return b.String()
}

func takeoverTools(effects string) *flow.Tools {
	tools := flow.NewTools()
	flow.Func(tools, "work", func(ctx context.Context, _ struct {
		Step int `json:"step"`
	}) (struct{}, error) {
		call, _ := flow.CallFrom(ctx)
		select {
		case <-time.After(time.Duration(5+rand.IntN(20)) * time.Millisecond):
		case <-ctx.Done():
			return struct{}{}, ctx.Err()
		}
		return struct{}{}, note(effects, call.Key)
	}, flow.WithEffect(flow.Keyed))
	return tools
}

// serverProcess is an engine that starts what it reads, a key per line, and says so once the start is durable.
func serverProcess(dsn string) error {
	store, err := pgstore.Open(context.Background(), dsn)
	if err != nil {
		return err
	}
	defer store.Close()
	heartbeat, err := time.ParseDuration(os.Getenv("ZHIYUN_TEST_HEARTBEAT"))
	if err != nil {
		return err
	}
	config := flow.Config{
		Store: store, Tools: takeoverTools(os.Getenv("ZHIYUN_TEST_EFFECTS")), Name: os.Getenv("ZHIYUN_TEST_NAME"), Heartbeat: heartbeat, Grace: time.Second,
	}
	if os.Getenv("ZHIYUN_TEST_LOG") != "" {
		config.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	engine, err := flow.New(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { // ends with the process
		err := engine.Run(ctx)
		if ctx.Err() == nil {
			fmt.Println("stopped:", err)
			os.Exit(1)
		}
		done <- err
	}()
	var starts sync.WaitGroup
	var out sync.Mutex
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		key := lines.Text()
		starts.Go(func() {
			id, err := engine.Start(ctx, "work", nil, flow.Key(key))
			out.Lock()
			defer out.Unlock()
			if err != nil {
				fmt.Println("failed", key, err)
				return
			}
			fmt.Println("started", key, id)
		})
	}
	starts.Wait()
	cancel()
	return <-done
}

// fleet is a database with the servers that share it, and what they were asked to start.
type fleet struct {
	t         *testing.T
	database  *pgtest.Server
	dsn       string
	effects   string
	heartbeat time.Duration
	servers   []*testServer

	mu      sync.Mutex        // guards what follows
	started map[string]string // by key: the ID that was acknowledged
	asked   int
}

// testServer is one process.
type testServer struct {
	name    string
	process *exec.Cmd
	in      io.WriteCloser
	read    chan struct{} // closed when its output has ended
}

func newFleet(t *testing.T, heartbeat time.Duration, servers int) *fleet {
	t.Helper()
	f := &fleet{t: t, database: pgtest.Start(t), effects: filepath.Join(t.TempDir(), "effects"), heartbeat: heartbeat, started: map[string]string{}}
	f.dsn = f.database.Database(t)
	engine, err := flow.New(flow.Config{Store: f.open(), Tools: takeoverTools(f.effects)})
	if err != nil {
		t.Fatal(err)
	}
	save(t, engine, takeoverFlow())
	for i := range servers {
		f.servers = append(f.servers, nil)
		f.run(i)
	}
	f.members(servers)
	return f
}

func (f *fleet) open() *pgstore.Store {
	f.t.Helper()
	store, err := pgstore.Open(f.t.Context(), f.dsn)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { store.Close() })
	return store
}

// run starts a server's process. Each has another name: who takes over is another host.
func (f *fleet) run(i int) {
	f.t.Helper()
	s := &testServer{name: fmt.Sprintf("server%d.%d", i, time.Now().UnixNano()), process: exec.Command(os.Args[0]), read: make(chan struct{})}
	s.process.Env = append(os.Environ(), "ZHIYUN_TEST_SERVER="+f.dsn, "ZHIYUN_TEST_HEARTBEAT="+f.heartbeat.String(), "ZHIYUN_TEST_EFFECTS="+f.effects, "ZHIYUN_TEST_NAME="+s.name)
	s.process.Stderr = os.Stderr
	out, err := s.process.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	if s.in, err = s.process.StdinPipe(); err != nil {
		f.t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		f.t.Fatal(err)
	}
	go func() { // ends with the process, whose end the test waits for
		defer close(s.read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			words := strings.Fields(lines.Text())
			if len(words) != 3 || words[0] != "started" {
				f.t.Error(s.name, "says:", lines.Text())
				continue
			}
			f.mu.Lock()
			if before := f.started[words[1]]; before != "" && before != words[2] {
				f.t.Errorf("%s was acknowledged as %s and is now %s", words[1], before, words[2])
			}
			f.started[words[1]] = words[2]
			f.mu.Unlock()
		}
	}()
	f.servers[i] = s
	f.t.Cleanup(func() {
		s.process.Process.Kill()
		<-s.read
		s.process.Wait()
	})
}

// ask has a server start n executions.
func (f *fleet) ask(server, n int) {
	f.mu.Lock()
	from := f.asked
	f.asked += n
	f.mu.Unlock()
	for i := range n {
		fmt.Fprintf(f.servers[server].in, "k%d\n", from+i)
	}
}

// askAgain has a server start what was never acknowledged: whoever was asked may be dead.
func (f *fleet) askAgain(server int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.asked {
		if key := fmt.Sprintf("k%d", i); f.started[key] == "" {
			fmt.Fprintln(f.servers[server].in, key)
		}
	}
}

func query[T any](f *fleet, conn *pgx.Conn, sql string, args ...any) []T {
	f.t.Helper()
	rows, err := conn.Query(f.t.Context(), sql, args...)
	if err != nil {
		f.t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

func (f *fleet) connect() *pgx.Conn {
	f.t.Helper()
	conn, err := pgx.Connect(f.t.Context(), f.dsn)
	if err != nil {
		f.t.Fatal(err)
	}
	return conn
}

// until waits for a condition.
func (f *fleet) until(what string, is func() bool) {
	f.t.Helper()
	for end := time.Now().Add(90 * time.Second); !is(); {
		if time.Now().After(end) {
			conn := f.connect()
			defer conn.Close(context.Background())
			f.t.Fatalf("not within 90s: %s; members %q; open: %q", what, query[string](f, conn, "SELECT m::text FROM flow_member m"),
				query[string](f, conn, "SELECT concat_ws(' ', id, step, wake, wake_for, seq, owner, updated) FROM flow_run WHERE open"))
		}
		<-time.After(5 * time.Millisecond)
	}
}

// members waits until so many live.
func (f *fleet) members(n int) {
	f.t.Helper()
	conn := f.connect()
	defer conn.Close(context.Background())
	f.until(fmt.Sprintf("%d members", n), func() bool { return query[int](f, conn, "SELECT count(*)::int FROM flow_member")[0] == n })
}

// owned lists the open executions of a server.
func (f *fleet) owned(conn *pgx.Conn, name string) []string {
	f.t.Helper()
	return query[string](f, conn, "SELECT r.id FROM flow_run r JOIN flow_member m ON m.id = r.owner WHERE r.open AND m.name = $1", name)
}

// goneOn waits until each of the executions has moved after a time, and returns how long after that the first and the last did. One whose last
// commit was on its way then has ended without.
func (f *fleet) goneOn(conn *pgx.Conn, ids []string, after time.Time) (first, last time.Duration) {
	f.t.Helper()
	const moved = `SELECT (SELECT min(e.at) FROM flow_event e WHERE e.id = r.id AND e.at > $2) FROM flow_run r
		WHERE r.id = ANY($1) AND (NOT r.open OR EXISTS (SELECT FROM flow_event e WHERE e.id = r.id AND e.at > $2)) ORDER BY 1`
	var at []*time.Time
	f.until("what ran there goes on elsewhere", func() bool {
		at = query[*time.Time](f, conn, moved, ids, after)
		return len(at) == len(ids)
	})
	at = slices.DeleteFunc(at, func(t *time.Time) bool { return t == nil })
	if len(at) == 0 {
		return 0, 0
	}
	return at[0].Sub(after), at[len(at)-1].Sub(after)
}

// finish waits for the end of everything that was asked for, and looks that nothing is lost and nothing doubled: a tool has had its effect as often as the record says
// that it began, at most.
func (f *fleet) finish() {
	f.t.Helper()
	conn := f.connect()
	defer conn.Close(context.Background())
	var started map[string]string // a copy: what was asked for twice may still be acknowledged a second time
	f.until("every start is acknowledged", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		started = maps.Clone(f.started)
		return len(started) == f.asked
	})
	f.until("every execution ends", func() bool { return query[int](f, conn, "SELECT count(*)::int FROM flow_run WHERE open")[0] == 0 })
	store := f.open()
	if found, err := flow.Check(f.t.Context(), store); err != nil || len(found) > 0 {
		f.t.Errorf("check: %v, %v", found, err)
	}
	rows, err := store.List(f.t.Context(), flow.Filter{})
	if err != nil {
		f.t.Fatal(err)
	}
	if len(rows) != f.asked {
		f.t.Errorf("%d executions, %d were started", len(rows), f.asked)
	}
	want := map[string]int{}
	for _, row := range rows {
		if row.State != flow.Done || started[row.Key] != row.ID {
			f.t.Errorf("%s with key %s, acknowledged as %s, is %s", row.ID, row.Key, started[row.Key], row.State)
		}
		records, err := store.History(f.t.Context(), row.ID, 0, 0)
		if err != nil {
			f.t.Fatal(err)
		}
		begun, ends := map[string]int{}, map[string]int{}
		for _, record := range records {
			events, err := flow.DecodeEvents(row.ID, record)
			if err != nil {
				f.t.Fatal(err)
			}
			for _, e := range events {
				switch e.Kind {
				case flow.EventAttemptDone:
					ends[e.Step]++
				case flow.EventAttemptStarted:
					begun[e.Step]++
					if ends[e.Step] > 0 {
						f.t.Errorf("%s: step %s is done and begun again", row.ID, e.Step)
					}
				}
			}
		}
		for i := range takeoverSteps {
			step := fmt.Sprintf("s%d", i)
			if ends[step] != 1 {
				f.t.Errorf("%s: step %s has %d results", row.ID, step, ends[step])
			}
			want[row.ID+"/"+step+"/0\n"] = begun[step]
		}
	}
	data, err := os.ReadFile(f.effects)
	if err != nil {
		f.t.Fatal(err)
	}
	effects, again := map[string]int{}, 0
	for line := range strings.Lines(string(data)) {
		if effects[line]++; effects[line] > 1 {
			again++
		}
		if _, known := want[line]; !known {
			f.t.Errorf("an effect under another key: %s", line)
		}
	}
	for key, begun := range want {
		if n := effects[key]; n == 0 || n > begun {
			f.t.Errorf("%d effects under %s, which began %d times", n, key, begun)
		}
	}
	f.t.Logf("%d executions, %d steps; %d tools in doubt ran again, under their keys", len(rows), len(want), again)
}

// Of two servers one is killed in the middle of 200 executions: the other goes on with its share, none is lost, none doubled.
func TestTwoServers(t *testing.T) {
	t.Parallel()
	const executions = 200
	f := newFleet(t, 200*time.Millisecond, 2)
	conn := f.connect()
	defer conn.Close(context.Background())
	for range 10 {
		f.ask(0, executions/20)
		f.ask(1, executions/20)
	}
	f.until("the middle", func() bool {
		return query[int](f, conn, "SELECT count(*)::int FROM flow_event")[0] > executions*takeoverSteps/2
	})
	killed := f.servers[0]
	ids := f.owned(conn, killed.name)
	at := time.Now()
	killed.process.Process.Kill()
	f.askAgain(1)
	first, last := f.goneOn(conn, ids, at)
	t.Logf("%d executions of the killed server went on after %s to %s", len(ids), first, last)
	f.finish()
}

// Rounds of takeover: a server is killed, or stopped for longer than its lease and then goes on, or the database is killed. Nothing is lost and nothing
// doubled. ZHIYUN_TAKEOVER is the number of rounds and the heartbeat, as in 50x100ms; the figures are in the log.
func TestTakeover(t *testing.T) {
	t.Parallel()
	rounds, heartbeat := 6, 100*time.Millisecond
	if text := os.Getenv("ZHIYUN_TAKEOVER"); text != "" {
		n, beat, _ := strings.Cut(text, "x")
		var err error
		if rounds, err = strconv.Atoi(n); err == nil {
			heartbeat, err = time.ParseDuration(beat)
		}
		if err != nil {
			t.Fatalf("ZHIYUN_TAKEOVER is %q: want rounds and heartbeat, as 50x100ms", text)
		}
	}
	const flows = 12 // of each server at a time
	f := newFleet(t, heartbeat, 2)
	figures := map[string][]time.Duration{}
	for round := range rounds {
		conn := f.connect()
		victim := round % 2
		f.ask(victim, flows)
		f.ask(1-victim, flows)
		var ids []string
		last := time.Now()
		f.until("the victim has something to do", func() bool {
			if ids = f.owned(conn, f.servers[victim].name); len(ids) == 0 && time.Since(last) > 200*time.Millisecond {
				f.ask(victim, flows) // it was faster than this look
				last = time.Now()
			}
			return len(ids) > 2
		})
		switch what := []string{"server killed", "server stopped", "database killed"}[round%3]; what {
		case "server killed":
			killed := f.servers[victim].process
			killed.Process.Kill()
			at := time.Now()
			ids = f.owned(conn, f.servers[victim].name) // what is open now cannot end before it is taken over
			first, last := f.goneOn(conn, ids, at)
			figures[what] = append(figures[what], last)
			t.Logf("round %d: %s: %d executions went on after %s to %s", round, what, len(ids), first, last)
			f.run(victim)
			f.askAgain(1 - victim)
		case "server stopped":
			stopped := f.servers[victim].process.Process
			if err := stopped.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			at := time.Now()
			<-time.After(heartbeat / 10) // what was on its way to the database
			ids = f.owned(conn, f.servers[victim].name)
			first, last := f.goneOn(conn, ids, at)
			figures[what] = append(figures[what], last)
			t.Logf("round %d: %s: %d executions went on after %s to %s", round, what, len(ids), first, last)
			if err := stopped.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			f.askAgain(1 - victim)
		default:
			f.database.Kill()
			f.database.Run()
			at := time.Now()
			conn.Close(context.Background())
			conn = f.connect()
			first, last := f.goneOn(conn, f.owned(conn, f.servers[victim].name), at)
			figures[what] = append(figures[what], last)
			t.Logf("round %d: %s: went on %s to %s after it was back", round, what, first, last)
		}
		conn.Close(context.Background())
		f.members(2)
	}
	f.finish()
	for what, took := range figures {
		slices.Sort(took)
		t.Logf("%s: median %s, longest %s: %.1f and %.1f heartbeats", what, took[len(took)/2], took[len(took)-1],
			float64(took[len(took)/2])/float64(heartbeat), float64(took[len(took)-1])/float64(heartbeat))
	}
}
