package device

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// CallerJoinIn is what l5.caller.join takes.
type CallerJoinIn struct {
	Caller  string   `json:"caller" doc:"the module, or service id, that calls"`
	Callees []string `json:"callees,omitempty" doc:"the service ids that it calls"`
	Timeout string   `json:"timeout,omitempty" doc:"how long to wait for grants and routes; default 10s"`
}

// CallerJoinOut is what l5.caller.join tells.
type CallerJoinOut struct {
	Caller string   `json:"caller"`
	Warm   []string `json:"warm" doc:"service ids to which the device holds a route"`
}

// CallersDir is the folder, below the root, with a file CALLER.json per caller that joined; the agent warms
// their routes when it starts. Its content is a CallerJoinOut.
const CallersDir = "etc/zhiyun/callers"

// CallerJoin makes the device a caller of what the module calls: it returns when each grant is in force and
// the device holds a route, and keeps that for the agent's next start. Codes: l5.denied, l5.no_instance, and
// whatever Routes tells.
func CallerJoin(ctx context.Context, env Env, in CallerJoinIn) (CallerJoinOut, error) {
	return perform(ctx, env, "l5.caller.join", in, func(ctx context.Context, c *call) (CallerJoinOut, error) {
		out := CallerJoinOut{Caller: in.Caller, Warm: []string{}}
		if err := name("caller", in.Caller); err != nil {
			return out, err
		}
		limit, err := duration("timeout", in.Timeout, 10*time.Second)
		if err != nil {
			return out, err
		}
		if len(in.Callees) > 0 {
			if err := need(c.Routes != nil, "routes", "set ZHIYUN_AGENT to the agent's device.sock"); err != nil {
				return out, err
			}
		}
		wait, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		for _, callee := range in.Callees {
			if err := c.warm(wait, in.Caller, callee); err != nil {
				return out, err
			}
			out.Warm = append(out.Warm, callee)
		}
		slices.Sort(out.Warm)
		p := path.Join(CallersDir, in.Caller+".json")
		if err := c.journal.save(p); err != nil {
			return out, err
		}
		text, err := json.MarshalIndent(out, "", "  ")
		if err != nil {
			return out, err
		}
		if err := c.parents(p); err != nil {
			return out, err
		}
		_, err = put(c.root, p, strings.NewReader(string(text)+"\n"), 0o644, "")
		return out, err
	})
}

// warm tries until the route is there: a grant that was just given takes a moment to arrive.
func (c *call) warm(ctx context.Context, caller, callee string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := c.Routes.Warm(ctx, caller, callee)
		if err == nil {
			return nil
		}
		// Out of time, the reason before it says more.
		if last == nil || !errors.Is(err, context.DeadlineExceeded) && named(err).Code != "tool.timeout" {
			last = err
		}
		select {
		case <-ctx.Done():
			var own *Error
			if errors.As(last, &own) {
				return last
			}
			return later("l5.unreachable", "no route from %s to %s: %v", caller, callee, last)
		case <-tick.C:
		}
	}
}

// Callers lists who has joined on the device at root, for an agent that starts and warms their routes.
func Callers(root string) ([]CallerJoinOut, error) {
	paths, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(CallersDir), "*.json"))
	if err != nil {
		return nil, named(err)
	}
	var callers []CallerJoinOut
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil {
			return nil, named(err)
		}
		var caller CallerJoinOut
		if err := json.Unmarshal(text, &caller); err != nil {
			return nil, fail("callers.damaged", "%s: %v; remove it and run l5.caller.join again", p, err)
		}
		callers = append(callers, caller)
	}
	return callers, nil
}

// CallerLeaveIn is what l5.caller.leave takes.
type CallerLeaveIn struct {
	CallerJoinIn
	Done  *CallerJoinOut `json:"done,omitempty" doc:"the output of l5.caller.join, when it is undone"`
	Purge bool           `json:"purge,omitempty" doc:"the device stops being a caller, whoever made it one"`
}

// CallerLeave undoes the l5.caller.join of the same key. With Purge it forgets the caller, which
// device.restore undoes.
func CallerLeave(ctx context.Context, env Env, in CallerLeaveIn) (Undone, error) {
	if !in.Purge {
		return undo(ctx, env, "l5.caller.join")
	}
	in.Done = nil
	return perform(ctx, env, "l5.caller.leave", in, func(_ context.Context, c *call) (Undone, error) {
		if err := name("caller", in.Caller); err != nil {
			return Undone{}, err
		}
		return Undone{State: "removed"}, c.purge(path.Join(CallersDir, in.Caller+".json"))
	})
}
