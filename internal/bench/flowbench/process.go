package flowbench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/pgstore"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
	"github.com/zhiyun-ops/zhiyun/internal/bench/flowbench/waiter"
)

// role says in the environment what a child is to do, as JSON.
const role = "ZHIYUN_FLOWBENCH"

// order is what a child does.
type order struct {
	Do    string `json:"do"`    // work, wait or inherit
	Store string `json:"store"` // a path, or a postgres:// URL
	Flows int    `json:"flows"`
	Sleep time.Duration
	Span  time.Duration
	// Heartbeat and Name are of an engine on a store that others share; 0 and "" are its defaults.
	Heartbeat time.Duration
	Name      string
}

// said is one line of a child's.
type said struct {
	What string        `json:"what"` // half, first, begun, done, idle, ready or step
	At   time.Time     `json:"at,omitzero"`
	ID   string        `json:"id,omitempty"` // of the execution
	CPU  time.Duration `json:"cpu,omitempty"`
	RSS  int64         `json:"rss,omitempty"` // bytes
}

// Main runs a child's part and exits, if the process is one.
func Main() {
	text := os.Getenv(role)
	if text == "" {
		return
	}
	var o order
	err := json.Unmarshal([]byte(text), &o)
	if err == nil {
		err = map[string]func(context.Context, order) error{"work": work, "wait": wait, "inherit": inherit}[o.Do](context.Background(), o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "flowbench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func say(s said) error { return json.NewEncoder(os.Stdout).Encode(s) }

type closer interface {
	flow.Store
	Close() error
}

// Open opens a store by its path, or its postgres:// URL.
func Open(ctx context.Context, name string) (closer, error) {
	if strings.Contains(name, "://") {
		return pgstore.Open(ctx, name)
	}
	return sqlitestore.Open(name)
}

// child is a process of this program with an order.
type child struct {
	cmd   *exec.Cmd
	lines *json.Decoder
}

func start(ctx context.Context, o order) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), role+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &child{cmd, json.NewDecoder(bufio.NewReader(out))}, nil
}

// hear waits for a line.
func (c *child) hear(what string) (said, error) {
	for {
		var s said
		if err := c.lines.Decode(&s); err != nil {
			return s, fmt.Errorf("a child went away before it was %s: %w", what, errors.Join(err, c.cmd.Wait()))
		}
		if s.What == what {
			return s, nil
		}
	}
}

// serve runs an engine with the flow of 23 steps, each of which takes a while, while fn does.
func serve(ctx context.Context, o order, told func(flow.Event), fn func(*flow.Engine) error) (err error) {
	store, err := Open(ctx, o.Store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	tools := flow.NewTools()
	flow.Func(tools, "step", func(ctx context.Context, in stepIn) (stepOut, error) {
		select {
		case <-time.After(o.Sleep):
		case <-ctx.Done():
		}
		return stepOut{in.From}, ctx.Err()
	}, flow.WithEffect(flow.Keyed))
	engine, err := flow.New(flow.Config{
		Store: store, Tools: tools, Concurrency: max(64, o.Flows), OnEvent: told, Heartbeat: o.Heartbeat, Name: o.Name,
	})
	if err != nil {
		return err
	}
	if _, err := engine.Save(ctx, []byte(chain())); err != nil {
		return err
	}
	stop := Background(ctx, engine.Run)
	defer func() { err = errors.Join(err, stop()) }()
	return fn(engine)
}

// work runs flows, started by key, and says when half of the steps are done, when the first of this process is, when there is one and all flows are started, and
// when all are done.
func work(ctx context.Context, o order) error {
	var done, begun atomic.Int64
	var first atomic.Value // the execution of the first step
	begin := func() {
		if begun.Add(1) == int64(o.Flows+1) {
			_ = say(said{What: "begun", ID: first.Load().(string)})
		}
	}
	return serve(ctx, o, func(e flow.Event) {
		if e.Kind != flow.EventAttemptDone {
			return
		}
		switch done.Add(1) {
		case 1:
			_ = say(said{What: "first"}) // who does not listen has gone, and takes this process along
			first.Store(e.Execution)
			begin()
		case int64(o.Flows * Steps / 2):
			_ = say(said{What: "half"})
		}
	}, func(engine *flow.Engine) (err error) {
		ids := make([]string, o.Flows)
		faults := make(chan error, o.Flows)
		for i := range ids {
			go func() { // ends with its flow; waited for below
				var err error
				if ids[i], err = engine.Start(ctx, "chain", map[string]any{"wf": strconv.Itoa(i)}, flow.Key(strconv.Itoa(i))); err == nil {
					begin()
					_, err = engine.Wait(ctx, ids[i])
				}
				faults <- err
			}()
		}
		for range ids {
			err = errors.Join(err, <-faults)
		}
		if err != nil {
			return err
		}
		return say(said{What: "done"})
	})
}

// wait runs an engine on what is there, and says what it cost to do nothing for a while.
func wait(ctx context.Context, o order) (err error) {
	store, err := Open(ctx, o.Store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	cost, err := waiter.Wait(ctx, store, o.Span)
	if err != nil {
		return err
	}
	return say(said{What: "idle", CPU: cost.CPU, RSS: cost.RSS})
}
