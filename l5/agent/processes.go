package agent

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/internal/hub"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// askWait is how long processes may take to say what they make of a service.
const askWait = time.Second

// processes asks the device's programs, over the streams that they watch by, what they make of a service.
//
//	Explain: asked ------Answer------> answered
//	           +----- askWait is over: without one
type processes struct {
	mu      sync.Mutex
	streams map[*hub.Subscriber]string // guarded by mu; the peer's name, as it gave it
	last    uint64                     // guarded by mu; the last id of an Ask
	waiting map[uint64]question        // guarded by mu; by id
}

func newProcesses() *processes {
	return &processes{streams: make(map[*hub.Subscriber]string), waiting: make(map[uint64]question)}
}

// heard takes a message of a stream.
func (p *processes) heard(sub *hub.Subscriber, request *l5pb.WatchRequest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if peer := request.GetPeer(); peer != "" || p.streams[sub] == "" {
		p.streams[sub] = peer
	}
	for _, answer := range request.GetAnswers() {
		if q, ok := p.waiting[answer.GetId()]; ok && q.sub == sub {
			delete(p.waiting, q.id)
			q.answer <- answer.GetExplanation()
		}
	}
}

// gone forgets a stream that ended.
func (p *processes) gone(sub *hub.Subscriber) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.streams, sub)
}

// question is one that was put to a process.
type question struct {
	id     uint64
	sub    *hub.Subscriber
	peer   string
	answer chan []byte // has room for it
}

// ask returns what the processes that call service make of it, by peer.
func (p *processes) ask(ctx context.Context, service string) []*l5pb.Process {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	var out []*l5pb.Process
	for _, q := range p.put(service) {
		process := &l5pb.Process{Peer: q.peer}
		select {
		case process.Explanation = <-q.answer:
		case <-ctx.Done():
			p.mu.Lock()
			delete(p.waiting, q.id)
			p.mu.Unlock()
		}
		out = append(out, process)
	}
	slices.SortFunc(out, func(a, b *l5pb.Process) int { return strings.Compare(a.GetPeer(), b.GetPeer()) })
	return out
}

// put asks all processes that call service.
func (p *processes) put(service string) (out []question) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for sub, peer := range p.streams {
		if !sub.Wants(service) {
			continue
		}
		p.last++
		q := question{p.last, sub, peer, make(chan []byte, 1)}
		if sub.Tell(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Ask{Ask: &l5pb.Ask{Id: q.id, Service: service}}}) {
			p.waiting[q.id] = q
		}
		out = append(out, q)
	}
	return out
}
