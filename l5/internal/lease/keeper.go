// Package lease keeps a Register stream to a name service: what it holds is registered anew on each connection, and
// changes are acknowledged to those who asked for them.
package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/internal/link"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
)

// ErrRefused says that the name service refused a registration; it will not help to try the same again.
var ErrRefused = errors.New("the name service refused the registration")

// Config of a Keeper.
type Config struct {
	Client l5pbconnect.NameServiceClient // required
	Owner  string                        // required; who holds the lease
	// OnState is called when the stream has its first answer, when it is lost, and when the first attempt fails; nil: not
	// called.
	OnState func(connected bool, err error)
	Logger  *slog.Logger // required
}

// Keeper holds what one owner has registered. Its methods are safe for concurrent use.
//
//	      Put              acknowledged           Drain                Remove
//	new -------> asked -------------------> up ----------> draining ----------> gone
//	               ^                         |                |
//	               +---- stream lost: asked again, in its last state
type Keeper struct {
	config Config

	mu   sync.Mutex
	held map[string]*l5pb.Instance // guarded by mu; by service and address
	ops  []*op                     // guarded by mu; not acknowledged, oldest first
	seq  uint64                    // guarded by mu
	sent uint64                    // guarded by mu; the last seq sent on the open stream
	said *l5pb.Outages             // guarded by mu; nil: nothing was said yet
	news bool                      // guarded by mu; said is to be sent
	wake chan struct{}
}

type op struct {
	request *l5pb.RegisterRequest
	done    chan error // holds one
}

// New returns a keeper. It connects in Run.
func New(config Config) *Keeper {
	return &Keeper{config: config, held: make(map[string]*l5pb.Instance), wake: make(chan struct{}, 1)}
}

func key(service, addr string) string { return service + "/" + addr }

// Put registers instance and returns when that is visible. If ctx ends before, the keeper goes on trying.
func (k *Keeper) Put(ctx context.Context, instance *l5pb.Instance) error {
	instance = proto.CloneOf(instance)
	err := k.do(ctx, &l5pb.RegisterRequest{Put: []*l5pb.Instance{instance}}, func() {
		k.held[key(instance.GetService(), instance.GetAddr())] = instance
	})
	if errors.Is(err, ErrRefused) {
		k.mu.Lock()
		delete(k.held, key(instance.GetService(), instance.GetAddr()))
		k.mu.Unlock()
	}
	return err
}

// Drain takes new calls away from an instance.
func (k *Keeper) Drain(ctx context.Context, service, addr string) error {
	return k.do(ctx, &l5pb.RegisterRequest{Drain: []*l5pb.Key{{Service: service, Addr: addr}}}, func() {
		if held := k.held[key(service, addr)]; held != nil {
			draining := proto.CloneOf(held)
			draining.State = l5pb.State_STATE_DRAINING
			k.held[key(service, addr)] = draining
		}
	})
}

// Remove ends a registration.
func (k *Keeper) Remove(ctx context.Context, service, addr string) error {
	return k.do(ctx, &l5pb.RegisterRequest{Remove: []*l5pb.Key{{Service: service, Addr: addr}}}, func() {
		delete(k.held, key(service, addr))
	})
}

// Withdraw forgets an instance that was never acknowledged, and removes it when it can.
func (k *Keeper) Withdraw(service, addr string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.held, key(service, addr))
	k.seq++
	k.ops = append(k.ops, &op{
		request: &l5pb.RegisterRequest{Seq: k.seq, Remove: []*l5pb.Key{{Service: service, Addr: addr}}}, done: make(chan error, 1),
	})
	k.signal()
}

// Say tells the name service where nobody serves of what the owner has registered: all of it, each time, now and on each
// connection to come. It is not acknowledged: say it again from time to time.
func (k *Keeper) Say(outages *l5pb.Outages) {
	k.mu.Lock()
	k.said, k.news = outages, true
	k.mu.Unlock()
	k.signal()
}

// Restore takes an instance for held without asking for an acknowledgement: the next connection carries it.
func (k *Keeper) Restore(instance *l5pb.Instance) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[key(instance.GetService(), instance.GetAddr())] = proto.CloneOf(instance)
}

// Wanted waits until there is something to keep.
func (k *Keeper) Wanted(ctx context.Context) error {
	select {
	case <-k.wake:
		k.signal()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Held returns what is registered, by service and address.
func (k *Keeper) Held() []*l5pb.Instance {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.list()
}

// list returns held in order. Callers hold mu.
func (k *Keeper) list() []*l5pb.Instance {
	out := make([]*l5pb.Instance, 0, len(k.held))
	for _, instance := range k.held {
		out = append(out, instance)
	}
	slices.SortFunc(out, func(a, b *l5pb.Instance) int {
		if a.GetService() != b.GetService() {
			return compare(a.GetService(), b.GetService())
		}
		return compare(a.GetAddr(), b.GetAddr())
	})
	return out
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// do applies change at once, so that a reconnect carries it, and waits for the acknowledgement.
func (k *Keeper) do(ctx context.Context, request *l5pb.RegisterRequest, change func()) error {
	o := &op{request: request, done: make(chan error, 1)}
	k.mu.Lock()
	change()
	k.seq++
	request.Seq = k.seq
	k.ops = append(k.ops, o)
	k.mu.Unlock()
	k.signal()
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for the name service to acknowledge: %w", context.Cause(ctx))
	}
}

func (k *Keeper) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Run keeps the stream until ctx ends, which it returns. The stream's end starts the grace period of what is held.
func (k *Keeper) Run(ctx context.Context) error {
	var backoff link.Backoff
	for told := false; ; {
		err := k.stream(ctx, &backoff, func() { told = false })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if k.config.OnState != nil && !told {
			told = true // once, not for each attempt
			k.config.OnState(false, err)
		}
		if err := backoff.Wait(ctx); err != nil {
			return err
		}
	}
}

func (k *Keeper) stream(ctx context.Context, backoff *link.Backoff, opened func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := k.config.Client.Register(ctx)
	defer stream.CloseResponse()
	k.mu.Lock()
	// All that is held goes first, so that a lease resumes at once; operations follow in their order.
	first := &l5pb.RegisterRequest{Owner: k.config.Owner, Put: k.list(), Outages: k.said}
	k.sent, k.news = 0, false
	k.mu.Unlock()
	if err := stream.Send(first); err != nil {
		_, err = stream.Receive()
		return errors.Join(err, stream.CloseRequest())
	}
	k.signal()
	var sending sync.WaitGroup
	sending.Go(func() {
		defer cancel()
		for k.sendNext(ctx, stream.Send) == nil {
			continue
		}
		stream.CloseRequest()
	})
	defer sending.Wait()
	defer cancel()
	for {
		response, err := stream.Receive()
		if err != nil {
			return err
		}
		if response.GetSeq() == 0 {
			opened()
			backoff.Reset()
			if k.config.OnState != nil {
				k.config.OnState(true, nil)
			}
			if fault := response.GetFault(); fault != "" {
				k.config.Logger.Warn("l5: a registration was refused on resuming", "owner", k.config.Owner, "reason", fault)
			}
		}
		k.acknowledge(response)
	}
}

func (k *Keeper) sendNext(ctx context.Context, send func(*l5pb.RegisterRequest) error) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-k.wake:
	}
	k.mu.Lock()
	var due []*l5pb.RegisterRequest
	for _, o := range k.ops {
		if o.request.GetSeq() > k.sent {
			due = append(due, o.request)
			k.sent = o.request.GetSeq()
		}
	}
	if k.news {
		k.news = false
		k.seq++
		k.sent = k.seq
		due = append(due, &l5pb.RegisterRequest{Seq: k.seq, Outages: k.said})
	}
	k.mu.Unlock()
	for _, request := range due {
		if err := send(request); err != nil {
			return err
		}
	}
	return nil
}

func (k *Keeper) acknowledge(response *l5pb.RegisterResponse) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, o := range k.ops {
		if o.request.GetSeq() == response.GetSeq() {
			var err error
			if fault := response.GetFault(); fault != "" {
				err = fmt.Errorf("%w: %s", ErrRefused, fault)
			}
			k.confirm(o.request, response)
			o.done <- err
			k.ops = slices.Delete(k.ops, i, i+1)
			return
		}
	}
}

// confirm notes at which revision what was put is in force, for when it is put again. Callers hold mu.
func (k *Keeper) confirm(request *l5pb.RegisterRequest, response *l5pb.RegisterResponse) {
	if response.GetFault() != "" || response.GetRevision() == 0 {
		return
	}
	for _, put := range request.GetPut() {
		if held := k.held[key(put.GetService(), put.GetAddr())]; held != nil {
			next := proto.CloneOf(held) // the held one may be on its way
			next.Acknowledged = response.GetRevision()
			k.held[key(put.GetService(), put.GetAddr())] = next
		}
	}
}
