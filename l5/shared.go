package l5

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// Health is shared by all processes of a device through its agent. A process tells at once what fails; the agent probes
// it, and tells all processes what it found. While there is no agent, each process goes on by what it sees itself.

// doubt tells the agent of a failed call: of the first two in a row that got no answer, and of the one that ejects.
func (c *Client) doubt(e *endpoint, err error, row uint32, ejected bool) {
	kind := doubtKind(err)
	if !ejected && (row > 2 || kind == l5pb.Doubt_KIND_FAILED) {
		return
	}
	c.link.Doubt(&l5pb.Doubt{Service: e.service.name, Addr: e.addr, Kind: kind, Ejected: ejected, Row: row, Text: words(err)})
}

// maxWords bounds the text of a doubt.
const maxWords = 200

// words is an error's text as a message can carry it.
func words(err error) string {
	text := err.Error()
	return strings.ToValidUTF8(text[:min(len(text), maxWords)], "?")
}

func doubtKind(err error) l5pb.Doubt_Kind {
	var netErr net.Error
	switch {
	case unreachable(err):
		return l5pb.Doubt_KIND_REFUSED
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return l5pb.Doubt_KIND_TIMED_OUT
	}
	return l5pb.Doubt_KIND_FAILED
}

// onHealth takes what the agent found out about a service.
func (c *Client) onHealth(health *l5pb.Health) {
	s := (*c.services.Load())[health.GetService()]
	if s == nil {
		return
	}
	downs := make(map[string]string, len(health.GetDown()))
	for _, d := range health.GetDown() {
		downs[d.GetAddr()] = "the device's agent: " + d.GetReason()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before, now := s.downs, c.config.now()
	s.downs = downs
	for addr := range before {
		if _, still := downs[addr]; !still {
			s.step(now, balance.Advice{Addr: addr, Says: balance.AdviceUp, Evidence: "the device's agent reaches it"})
		}
	}
	s.advised(now)
}

// advised takes what the agent says is down to the core; what it was told before changes nothing. Callers hold mu.
func (s *service) advised(now time.Time) {
	for addr, evidence := range s.downs {
		s.step(now, balance.Advice{Addr: addr, Says: balance.AdviceDown, Evidence: evidence})
	}
}

// adviceEnds says that there is no agent any more to take back what it said.
func (c *Client) adviceEnds() {
	now := c.config.now()
	for _, s := range *c.services.Load() {
		s.mu.Lock()
		for addr := range s.downs {
			s.step(now, balance.Advice{Addr: addr, Says: balance.AdviceEnds})
		}
		s.downs = nil
		s.mu.Unlock()
	}
}
