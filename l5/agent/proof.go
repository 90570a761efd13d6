package agent

import (
	"context"
	"fmt"

	"github.com/zhiyun-ops/zhiyun/internal/peer"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5/internal/hub"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// Process is a program of this device at the other end of the socket. The kernel says which one it is (SO_PEERCRED): no
// message can claim another.
type Process struct {
	UID uint32
	PID int // 0 where the kernel does not tell
}

// Standing says for whom a process may speak.
type Standing struct {
	// Module is the one module that it may ask for routes, register and report as.
	Module string
	// Any lets it speak for every module: the agent's own program, or one that is believed.
	Any bool
}

// speaker is one stream or call of a process, with what it may say. As a hub.Gate it refuses in the process's own name
// what it may not ask, before anybody upstream is asked.
//
//	connected --Prove--> may speak for one module | may speak for any | for none, with the reason
type speaker struct {
	agent    *Agent
	uid      uint32 // 0 if it is not asked for
	standing Standing
	err      error // why it may speak for none
}

var _ hub.Gate = (*speaker)(nil)

// speaker asks who is at the other end of the call.
func (a *Agent) speaker(ctx context.Context) *speaker {
	s := &speaker{agent: a, standing: Standing{Any: true}}
	if a.config.Prove == nil {
		return s
	}
	who, err := peer.Of(transport.Conn(ctx))
	s.uid = who.UID
	if err == nil {
		s.standing, err = a.config.Prove(ctx, Process{UID: who.UID, PID: who.PID})
	}
	if err != nil {
		s.standing, s.err = Standing{}, fmt.Errorf("process %d of user %d: %w", who.PID, who.UID, err)
	}
	return s
}

// party is for whom the process speaks, as far as that is proved: what it claims could be anything.
func (s *speaker) party(uid uint32) string {
	return fmt.Sprintf("%d/%s", uid, s.standing.Module)
}

// may says why the process may not speak for a caller; nil if it may.
func (s *speaker) may(caller string) error {
	switch {
	case s.err != nil:
		return s.err
	case s.standing.Any || caller == s.standing.Module:
		return nil
	}
	return fmt.Errorf("it is a process of module %q, and cannot speak for %q", s.standing.Module, caller)
}

// Verdict implements hub.Gate.
func (s *speaker) Verdict(caller, service string) (allowed, known bool, reason string) {
	if err := s.may(caller); err != nil {
		return false, true, err.Error()
	}
	return s.agent.callers.Verdict(caller, service)
}

// turnAway counts a refusal, and logs it, but not each one of the same party.
func (s *speaker) turnAway(what string, err error) error {
	s.agent.metrics.refused.WithLabelValues(what).Inc()
	if kept, ok := s.agent.refused.say(s.agent.now(), what+" "+s.party(s.uid)); ok {
		s.agent.config.Logger.Warn("l5/agent: refused", "what", what, "error", err, "more", kept)
	}
	return err
}

// subscribe refuses what may not be asked; true means to go on.
func (s *speaker) subscribe(want *l5pb.Subscription) bool {
	err := s.may(want.GetCaller())
	if err != nil {
		s.turnAway("route", err)
	}
	return err == nil
}

// register refuses an instance of another module, and marks one of none as the process's own.
func (s *speaker) register(instance *l5pb.Instance) error {
	if s.err == nil && !s.standing.Any && instance.GetModule() == "" {
		instance.Module = s.standing.Module
	}
	if err := s.may(instance.GetModule()); err != nil {
		return s.turnAway("register", err)
	}
	return nil
}

// touch refuses to change what a process of another module has registered.
func (s *speaker) touch(key *l5pb.Key) error {
	if err := s.may(s.agent.locals.module(key.GetService(), key.GetAddr(), s.standing.Module)); err != nil {
		return s.turnAway("change", err)
	}
	return nil
}

// report refuses outcomes of another module's calls: a report is taken whole or not at all.
func (s *speaker) report(request *l5pb.ReportRequest) error {
	for _, o := range request.GetOutcomes() {
		if err := s.may(o.GetCaller()); err != nil {
			return s.turnAway("report", err)
		}
	}
	return nil
}
