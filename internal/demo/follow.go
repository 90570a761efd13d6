package demo

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// execution reads one execution.
func (s *story) execution(id string) (flow.Execution, error) {
	return control.Decode[flow.Execution](s.api.Flows.Get(s.ctx, connect.NewRequest(&pb.ExecutionRequest{Id: id})))
}

// executions lists those of a flow, the newest first.
func (s *story) executions(name string) ([]flow.Execution, error) {
	all, _, err := control.DecodeList[flow.Execution](s.api.Flows.List(s.ctx, connect.NewRequest(&pb.ListExecutionsRequest{Flow: name})))
	return all, err
}

// tellSteps says which steps of an execution have ended since it was last looked at.
func (s *story) tellSteps(e flow.Execution) {
	for i, step := range e.Steps {
		if step.Ended.IsZero() {
			continue
		}
		var where []string
		for _, task := range step.Tasks {
			if task.Device != "" && !slices.Contains(where, task.Device) {
				where = append(where, task.Device)
			}
		}
		on := ""
		if len(where) > 0 {
			on = " on " + strings.Join(where, ", ")
		}
		s.once(fmt.Sprintf("step/%s/%d", e.ID, i), "flow", "%2d %-9s %-18s %s, %s%s", i+1, step.Stage, step.Tool, step.State, step.Ended.Sub(step.Started).Round(time.Millisecond), on)
	}
}

// tellRollouts says where the rollouts of the service stand, and returns them.
func (s *story) tellRollouts() ([]gray.Rollout, error) {
	all, _, err := control.DecodeList[gray.Rollout](s.api.Gray.List(s.ctx, connect.NewRequest(&pb.ListRolloutsRequest{Service: service})))
	for _, r := range all {
		why := r.Status.Reason.String()
		s.once(fmt.Sprintf("rollout/%s/%s/%d", r.ID, r.Status.State, r.Status.Percent), "gray", "%d new at %d %% of their full weight, %s: %s", len(r.New), r.Status.Percent, r.Status.State, why)
	}
	return all, err
}

// orders lists what scale has ordered for the module.
func (s *story) orders() ([]scale.Order, error) {
	all, _, err := control.DecodeList[scale.Order](s.api.Scale.Orders(s.ctx, connect.NewRequest(&pb.ScaleRequest{Module: module})))
	for _, o := range all {
		s.once("order/"+o.Key, "scale", "orders %s: %d devices (%s): %s", o.Direction, o.Count, strings.Join(o.Names(), ", "), o.Reason)
	}
	return all, err
}

// decision says what the decider thinks, when that changed.
func (s *story) decision() {
	all, _, err := control.DecodeList[scale.Status](s.api.Scale.Status(s.ctx, connect.NewRequest(&pb.ScaleRequest{Module: module})))
	if err != nil {
		return // the decider may not have looked yet
	}
	for _, status := range all {
		d := status.Decision
		s.once(fmt.Sprintf("decision/%s/%d/%s", s.report.phase, d.Want, d.Reason.Code), "scale", "have %d, want %d: %s", d.Have, d.Want, d.Reason)
	}
}

// look tells what happened since the last look.
func (s *story) look() error {
	s.decision()
	if _, err := s.orders(); err != nil {
		return err
	}
	for _, name := range []string{"expand", "contract"} {
		list, err := s.executions(name)
		if err != nil {
			return err
		}
		for _, e := range list {
			if s.told["ended/"+e.ID] {
				continue
			}
			whole, err := s.execution(e.ID)
			if err != nil {
				return err
			}
			s.tellSteps(whole)
			if !whole.Ended.IsZero() {
				s.once("ended/"+e.ID, "flow", "%s %s: %s in %s", name, short(e.ID), whole.State, whole.Ended.Sub(whole.Started).Round(10*time.Millisecond))
			}
			if whole.State == flow.Stuck || whole.State == flow.Compensating {
				s.once("trouble/"+e.ID+string(whole.State), "flow", "%s %s is %s: %v %s", name, short(e.ID), whole.State, whole.Error, whole.Waiting)
			}
		}
	}
	_, err := s.tellRollouts()
	return err
}

func short(id string) string { return id[:min(8, len(id))] }
