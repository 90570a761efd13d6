package fleet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// role says in the environment what a child is.
const role = "ZHIYUN_FLEET"

// order is what a child is told, one per line of its input.
type order struct {
	Do        string        `json:"do"`
	Dir       string        `json:"dir,omitempty"` // of an etcd member; none: in memory
	Instances int           `json:"instances,omitempty"`
	Services  int           `json:"services,omitempty"`
	Targets   []string      `json:"targets,omitempty"`
	First     int           `json:"first,omitempty"` // number of the first stream, which decides its address
	N         int           `json:"n,omitempty"`
	Size      int           `json:"size,omitempty"`
	Gap       time.Duration `json:"gap,omitempty"`
}

// report is what a child answers, one per order.
type report struct {
	Error   string        `json:"error,omitempty"`
	Target  string        `json:"target,omitempty"`
	Targets []string      `json:"targets,omitempty"`
	Raw     string        `json:"raw,omitempty"` // where the bare sockets are
	Took    time.Duration `json:"took,omitempty"`
	CPU     time.Duration `json:"cpu,omitempty"` // of the whole process, since it began
	RSS     int64         `json:"rss,omitempty"` // bytes
	Heap    int64         `json:"heap,omitempty"`
	Bytes   int64         `json:"bytes,omitempty"` // of the records
	Floor   time.Duration `json:"floor,omitempty"` // what it took to list them
	Times   [][]int64     `json:"times,omitempty"` // Unix nanoseconds: of changes, or by stream of their arrival
	Counts  counts        `json:"counts"`
}

// counts are of streams, since the process began.
type counts struct {
	Streams, Snapshots, Deltas, Opened, Reports int64
}

// Main runs a child's part and exits, if the process is one.
func Main() {
	run := map[string]func(context.Context, order) (report, error){"host": new(host).obey, "crowd": new(crowd).obey}[os.Getenv(role)]
	if run == nil {
		return
	}
	if err := obey(os.Stdin, os.Stdout, run); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// obey carries out orders until the input ends.
func obey(in io.Reader, out io.Writer, run func(context.Context, order) (report, error)) error {
	orders, reports := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var o order
		if err := orders.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		r, err := run(context.Background(), o)
		if err != nil {
			r.Error = fmt.Sprintf("%s: %v", o.Do, err)
		}
		if err := reports.Encode(r); err != nil {
			return err
		}
	}
}

// child is a process of this program with a part of its own.
type child struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	reports *json.Decoder
}

func start(ctx context.Context, part string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), role+"="+part)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a %s: %w", part, err)
	}
	return &child{cmd: cmd, in: in, reports: json.NewDecoder(bufio.NewReaderSize(out, 1<<20))}, nil
}

// tell gives an order and waits for the report.
func (c *child) tell(o order) (report, error) {
	if err := c.give(o); err != nil {
		return report{}, err
	}
	return c.hear()
}

func (c *child) give(o order) error { return json.NewEncoder(c.in).Encode(o) }

func (c *child) hear() (report, error) {
	var r report
	if err := c.reports.Decode(&r); err != nil {
		return r, fmt.Errorf("a child went away: %w", err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// end lets the child end by itself, and waits for it.
func (c *child) end() error {
	err := c.in.Close()
	return errors.Join(err, c.cmd.Wait())
}

// kill ends the child as a crash does.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may be gone
	_ = c.cmd.Wait()
}
