package control

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/flow"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/records"
)

// ops serves OpsService.
type ops struct{ *API }

func pausedObject(module string) string {
	if module == "" {
		return "automation"
	}
	return "module/" + module
}

func (o ops) Pause(ctx context.Context, q *connect.Request[pb.PauseRequest]) (*connect.Response[pb.JSON], error) {
	c, err := o.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if q.Msg.Module != "" {
		if _, err := o.config.CMDB.Module(q.Msg.Module); err != nil {
			return nil, err
		}
	}
	paused, err := o.config.Centers.Pause.Press(ctx, q.Msg.Module, c.Actor, c.Reason)
	if err != nil {
		return nil, err
	}
	return document(paused, o.audit(ctx, c, "pause", pausedObject(q.Msg.Module), nil))
}

func (o ops) Resume(ctx context.Context, q *connect.Request[pb.PauseRequest]) (*connect.Response[pb.ResumeResponse], error) {
	c, err := o.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	was, err := o.config.Centers.Pause.Release(ctx, q.Msg.Module, c.Actor)
	if err != nil {
		return nil, err
	}
	if err := o.audit(ctx, c, "resume", pausedObject(q.Msg.Module), nil); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ResumeResponse{WasPaused: was}), nil
}

func (o ops) Paused(ctx context.Context, _ *connect.Request[pb.PauseRequest]) (*connect.Response[pb.Listing], error) {
	all, err := o.config.Centers.Pause.List(ctx)
	return listing(all, "", err)
}

func (o ops) Audit(ctx context.Context, q *connect.Request[pb.AuditRequest]) (*connect.Response[pb.Listing], error) {
	n, err := limit(q.Msg.Page)
	if err != nil {
		return nil, err
	}
	since, err := moment("since", q.Msg.Since)
	if err != nil {
		return nil, err
	}
	query := records.Query{Actor: q.Msg.Actor, Object: q.Msg.Object, Action: q.Msg.Action, Execution: q.Msg.Execution, Since: since, Limit: n}
	if after := q.Msg.Page.GetAfter(); after != "" {
		if query.After, err = strconv.ParseInt(after, 10, 64); err != nil {
			return nil, invalid("page.after", after, "give what the former page called next")
		}
	}
	entries, err := o.config.Records.AuditLog(ctx, query)
	next := ""
	if len(entries) == n {
		next = strconv.FormatInt(entries[n-1].ID, 10)
	}
	return listing(entries, next, err)
}

func (o ops) Info(context.Context, *connect.Request[pb.InfoRequest]) (*connect.Response[pb.JSON], error) {
	return document(o.config.Info, nil)
}

// Examined is what a check of OpsService.Doctor found.
type Examined struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Text  string `json:"text"` // what was found, or what is wrong and how to mend it
	Milli int64  `json:"ms"`
}

// examineHolders looks for devices that an execution holds which is over, as one is whose last step a person skipped: nobody
// will give them back.
func (o ops) examineHolders(ctx context.Context) (string, error) {
	held := o.config.CMDB.Devices(cmdb.DeviceFilter{State: cmdb.Held})
	if o.config.Flow == nil {
		return fmt.Sprintf("%d devices are held", len(held)), nil
	}
	ended := make(map[string]flow.State)
	for _, device := range held {
		state, ok := ended[device.Holder]
		if !ok {
			execution, err := o.config.Flow.Get(ctx, device.Holder)
			if err != nil && !errors.Is(err, flow.ErrNotFound) {
				return "", err
			}
			state = execution.State // none: it is held by something else
			ended[device.Holder] = state
		}
		if state.Ended() {
			return "", fmt.Errorf("device %[1]s is held by execution %[2]s, which is %[3]s: zhiyun device fault %[1]s, "+
				"zhiyun flow run clean device=%[1]s module=%[4]s, zhiyun device repair %[1]s", device.Name, device.Holder, state, device.Module)
		}
	}
	return fmt.Sprintf("%d devices are held, none by an execution that is over", len(held)), nil
}

func (o ops) Doctor(ctx context.Context, _ *connect.Request[pb.InfoRequest]) (*connect.Response[pb.Listing], error) {
	checks := append([]Check{
		{"cmdb", func(ctx context.Context) (string, error) {
			if err := o.config.CMDB.Ready(ctx); err != nil {
				return "", err
			}
			return fmt.Sprintf("%d modules, devices %v, revision %d", len(o.config.CMDB.Modules()), o.config.CMDB.Counts(), o.config.CMDB.Revision()), nil
		}},
		{"holders", o.examineHolders},
		{"centers", func(ctx context.Context) (string, error) {
			if err := o.config.Centers.Ready(ctx); err != nil {
				return "", err
			}
			_, _, err := o.config.Centers.Blobs.Put(ctx, strings.NewReader(""), "")
			return "grants are known, blobs can be written", err
		}},
		{"records", func(ctx context.Context) (string, error) {
			_, err := o.config.Records.AuditLog(ctx, records.Query{Limit: 1})
			return "the audit record answers", err
		}},
		{"automation", func(ctx context.Context) (string, error) {
			paused, err := o.config.Centers.Pause.List(ctx)
			if err == nil && len(paused) > 0 {
				err = fmt.Errorf("paused by %s (%s): zhiyun resume %s", paused[0].Actor, paused[0].Reason, paused[0].Module)
			}
			return "not paused", err
		}},
	}, o.config.Checks...)
	out := make([]Examined, len(checks))
	for i, check := range checks {
		bound, cancel := context.WithTimeout(ctx, 5*time.Second)
		start := time.Now()
		text, err := check.Run(bound)
		cancel()
		out[i] = Examined{Name: check.Name, OK: err == nil, Text: text, Milli: time.Since(start).Milliseconds()}
		if err != nil {
			out[i].Text = err.Error()
		}
	}
	return listing(out, "", nil)
}
