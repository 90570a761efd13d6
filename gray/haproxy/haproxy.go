// Package haproxy sets the weights of a rollout in a running HAProxy, through its runtime API: it is a
// gray.Weights. A service is a backend, a member is a server of it. 100 percent is the weight that the server has
// in the configuration.
package haproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/gray"
)

// Config of Weights.
type Config struct {
	// Socket is the path of HAProxy's stats socket ("stats socket /run/haproxy.sock level admin"). Required.
	Socket string
	// Backend names the backend of a service. Default: the service itself.
	Backend func(service string) string
	// Timeout of one command, if the context has no earlier deadline. Default 5 s.
	Timeout time.Duration
}

// ErrFence says that a later leader has set weights through this process.
var ErrFence = errors.New("haproxy: another leader sets the weights now; this one has to stop")

// Weights is one HAProxy. It is safe for concurrent use. HAProxy keeps no fencing number: a late order is refused
// only if the later leader's went through the same process.
type Weights struct {
	cfg Config

	mu    sync.Mutex
	fence int64 // guarded by mu; the highest seen
}

var _ gray.Weights = (*Weights)(nil)

// New checks cfg; it connects to nothing yet.
func New(cfg Config) (*Weights, error) {
	if cfg.Socket == "" {
		return nil, errors.New("haproxy: Socket is empty: give the path of HAProxy's stats socket, of level admin")
	}
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("haproxy: Timeout %v is negative: give a positive value, or 0 for 5 s", cfg.Timeout)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Backend == nil {
		cfg.Backend = func(service string) string { return service }
	}
	return &Weights{cfg: cfg}, nil
}

// SetShares implements gray.Weights. Members that the backend does not have are passed over.
func (w *Weights) SetShares(ctx context.Context, service string, shares map[string]int, fence int64) error {
	w.mu.Lock()
	if fence < w.fence {
		w.mu.Unlock()
		return fmt.Errorf("%w: fence %d is below %d", ErrFence, fence, w.fence)
	}
	w.fence = fence
	w.mu.Unlock()
	have, err := w.Shares(ctx, service)
	if err != nil {
		return err
	}
	for _, member := range slices.Sorted(maps.Keys(shares)) {
		if _, there := have[member]; !there {
			continue
		}
		lines, err := w.ask(ctx, fmt.Sprintf("set server %s/%s weight %d%%", w.cfg.Backend(service), member, shares[member]))
		if err == nil && len(lines) > 0 {
			err = fmt.Errorf("haproxy: set weight of %s/%s: %s", w.cfg.Backend(service), member, strings.Join(lines, " "))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Shares implements gray.Weights.
func (w *Weights) Shares(ctx context.Context, service string) (map[string]int, error) {
	backend := w.cfg.Backend(service)
	lines, err := w.ask(ctx, "show servers state "+backend)
	if err != nil {
		return nil, err
	}
	return parse(backend, lines)
}

// parse reads the answer to "show servers state".
func parse(backend string, lines []string) (map[string]int, error) {
	out := make(map[string]int)
	var columns []string
	for _, line := range lines {
		if header, ok := strings.CutPrefix(line, "# "); ok {
			columns = strings.Fields(header)
			continue
		}
		if columns == nil {
			continue // the version of the format, or an error that is reported below
		}
		row := make(map[string]string, len(columns))
		for i, value := range strings.Fields(line) {
			if i < len(columns) {
				row[columns[i]] = value
			}
		}
		user, err1 := strconv.ParseFloat(row["srv_uweight"], 64)
		initial, err2 := strconv.ParseFloat(row["srv_iweight"], 64)
		if err := errors.Join(err1, err2); err != nil || row["srv_name"] == "" {
			return nil, fmt.Errorf("haproxy: servers of %s: line %q: %w; the format of this HAProxy is not known", backend, line, err)
		}
		if user >= 0 && initial > 0 && !math.IsInf(user/initial, 0) {
			out[row["srv_name"]] = int(math.Round(100 * user / initial))
		}
	}
	if columns == nil {
		return nil, fmt.Errorf("haproxy: servers of %s: %s", backend, strings.Join(lines, " "))
	}
	return out, nil
}

// ask sends one command and reads the lines of its answer.
func (w *Weights) ask(ctx context.Context, command string) ([]string, error) {
	if strings.ContainsAny(command, ";\n\\") || strings.Count(command, " ") > 5 {
		return nil, fmt.Errorf("haproxy: %q holds another command: name services and members without spaces and semicolons", command)
	}
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", w.cfg.Socket)
	if err != nil {
		return nil, fmt.Errorf("haproxy: %w; is HAProxy running, with this stats socket?", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		return nil, fmt.Errorf("haproxy: %q: %w", command, err)
	}
	var lines []string
	scanner := bufio.NewScanner(conn)
	for scanner.Scan() {
		if line := strings.TrimSpace(scanner.Text()); line != "" {
			lines = append(lines, line)
		}
	}
	if err := errors.Join(scanner.Err(), ctx.Err()); err != nil {
		return nil, fmt.Errorf("haproxy: %q: %w", command, err)
	}
	return lines, nil
}
