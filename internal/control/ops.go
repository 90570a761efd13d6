package control

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
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
	return rpc.Document(paused, o.audit(ctx, c, "pause", pausedObject(q.Msg.Module), nil))
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
	return rpc.Listing(all, "", err)
}

func (o ops) Audit(ctx context.Context, q *connect.Request[pb.AuditRequest]) (*connect.Response[pb.Listing], error) {
	n, err := rpc.Limit(q.Msg.Page)
	if err != nil {
		return nil, err
	}
	since, err := rpc.Moment("since", q.Msg.Since)
	if err != nil {
		return nil, err
	}
	query := records.Query{Actor: q.Msg.Actor, Object: q.Msg.Object, Action: q.Msg.Action, Execution: q.Msg.Execution, Since: since, Limit: n}
	if after := q.Msg.Page.GetAfter(); after != "" {
		if query.After, err = strconv.ParseInt(after, 10, 64); err != nil {
			return nil, rpc.Invalid("page.after", after, "give what the former page called next")
		}
	}
	entries, err := o.config.Records.AuditLog(ctx, query)
	next := ""
	if len(entries) == n {
		next = strconv.FormatInt(entries[n-1].ID, 10)
	}
	return rpc.Listing(entries, next, err)
}

func (o ops) Info(context.Context, *connect.Request[pb.InfoRequest]) (*connect.Response[pb.JSON], error) {
	return rpc.Document(o.config.Info, nil)
}

// Examined is what a check of OpsService.Doctor found.
type Examined struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Text  string `json:"text"` // what was found, or what is wrong and how to mend it
	Milli int64  `json:"ms"`
}

// examineFlows verifies what is open of the flows, as far as it gets in the time that a check has.
func (o ops) examineFlows(ctx context.Context) (string, error) {
	if o.config.Flow == nil {
		return "this server runs none", nil
	}
	report, err := o.config.Flow.Check(ctx, flow.Filter{Open: true})
	if len(report.Violations) > 0 {
		return "", fmt.Errorf("%d faults in the store of the flows, the first of execution %s: zhiyun flow check lists them; keep a copy of the store before you mend anything", len(report.Violations), report.Violations[0])
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("%d open executions are whole, and there are more: zhiyun flow check takes its time for all", report.Executions), nil
	}
	return fmt.Sprintf("%d open executions are whole", report.Executions), err
}

func (o ops) Doctor(ctx context.Context, _ *connect.Request[pb.InfoRequest]) (*connect.Response[pb.Listing], error) {
	checks := append([]Check{
		{"cmdb", func(ctx context.Context) (string, error) {
			if err := o.config.CMDB.Ready(ctx); err != nil {
				return "", err
			}
			return fmt.Sprintf("%d modules, devices %v, revision %d", len(o.config.CMDB.Modules()), o.config.CMDB.Counts(), o.config.CMDB.Revision()), nil
		}},
		{"flows", o.examineFlows},
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
	return rpc.Listing(out, "", nil)
}
