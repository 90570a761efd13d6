// Package link keeps a watch stream to a name service: it subscribes, applies what arrives, asks for a snapshot
// after a gap, and connects again with growing, jittered waits. What it holds outlives the stream.
package link

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
)

// Config of a Link.
type Config struct {
	Client l5pbconnect.NameServiceClient // required
	// Dial returns another Client with connections of its own, for a stream that has gone silent: the connection that
	// carried it may be dead without anybody having noticed. Nil: Client is used again.
	Dial func() (client l5pbconnect.NameServiceClient, hangUp func(), err error)
	// ProgressEvery is how often the peer shall be heard; one that is silent for half as long again is left for another stream.
	// Peers that do not know of it are waited for. Default: 1 s.
	ProgressEvery time.Duration
	// Peer names this process to the name service.
	Peer string
	// OnView is called with each new state of a service, and the delta that led there from the state before, if one
	// did. OnVerdict is called with each verdict. Required. They are called in order, one after the other, and from
	// one goroutine, but for the OnView of a state that was held back.
	OnView    func(v view.View, change *l5pb.Delta)
	OnVerdict func(*l5pb.Verdict)
	// Device names the subscriber's device, to be told where it is; empty: it is not asked for.
	Device string
	// OnSettings is called with the settings of a service whenever they change, OnPlace with where the device is; nil: not
	// called. They are called from the goroutine of OnVerdict.
	OnSettings func(*l5pb.Settings)
	OnPlace    func(*l5pb.Place)
	// OnAsk answers what the peer asks about a service, as the document of an Answer; nil: nothing is answered.
	OnAsk func(service string) []byte
	// OnHealth is called with the health of a service's instances that an agent found out; nil: not called.
	OnHealth func(*l5pb.Health)
	// OnState is called when the stream has its first answer, when it is lost, and when the first attempt fails; nil: not
	// called.
	OnState func(connected bool, err error)
	// OnResync is called when a gap made a snapshot necessary; nil: not called.
	OnResync func(service string)
	// OnHold is called when a state is held back because it drops too much of a service; nil: not called. It must not
	// call the link.
	OnHold func(service string, have, get int)
	// OnForget is called when the last caller of a service was unsubscribed, and what was held of it is dropped; nil: not
	// called. It must not call the link.
	OnForget func(service string)
	// Store keeps the states in use; default: memory.
	Store Store
	// Now tells the time; default: time.Now.
	Now    func() time.Time
	Logger *slog.Logger // required
}

// Link is one watch stream, over and over.
//
//	        Run                     stream opened
//	idle ---------> connecting --------------------> open
//	                  ^    ^                           |
//	                  |    +------ wait (backoff) <----+ stream lost
//	                  +-- attempt failed: wait (backoff)
type Link struct {
	config Config

	order    sync.Mutex // held from before a state is put into use until OnView has returned; before mu
	mu       sync.Mutex
	views    Store                        // guarded by mu; in use
	holds    map[string]holding           // guarded by mu; held back
	wants    map[string]map[string]uint64 // guarded by mu; by service and caller: the sum of the verdict that came; 0: none
	rules    map[string]*l5pb.Settings    // guarded by mu; by service
	outbox   []*l5pb.Subscription         // guarded by mu; not yet sent on the open stream
	gone     []*l5pb.Subscription         // guarded by mu; unsubscriptions not yet sent
	answers  []*l5pb.Answer               // guarded by mu; not yet sent on the open stream
	doubts   []*l5pb.Doubt                // guarded by mu; not yet sent
	sharing  bool                         // guarded by mu; the peer of this stream takes doubts
	patience int                          // owned by Run; doubles with each stream that went silent, and halves with each that did not
	common   interner                     // guarded by mu
	wake     chan struct{}                // signals outbox, gone, answers and doubts
	heard    time.Time                    // guarded by mu; when the last message came
	down     chan struct{}                // guarded by mu; closed while there is no stream and an attempt has failed
}

// New returns a link. It connects in Run.
func New(config Config) *Link {
	if config.ProgressEvery <= 0 {
		config.ProgressEvery = time.Second
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Store == nil {
		config.Store = make(memory)
	}
	return &Link{
		config: config, views: config.Store, holds: make(map[string]holding),
		wants: make(map[string]map[string]uint64), wake: make(chan struct{}, 1),
		rules: make(map[string]*l5pb.Settings), down: make(chan struct{}), patience: 1,
	}
}

// Subscribe asks for service on behalf of caller. Asking twice is asking once.
func (l *Link) Subscribe(caller, service string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	callers := l.wants[service]
	if callers == nil {
		callers = make(map[string]uint64)
		l.wants[service] = callers
	}
	if _, ok := callers[caller]; ok {
		return
	}
	callers[caller] = 0
	l.outbox = append(l.outbox, l.subscription(caller, service))
	l.signal()
}

// Unsubscribe ends what Subscribe began and forgets the service with its last caller.
func (l *Link) Unsubscribe(caller, service string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	callers := l.wants[service]
	if _, ok := callers[caller]; !ok {
		return
	}
	delete(callers, caller)
	l.gone = append(l.gone, &l5pb.Subscription{Service: service, Caller: caller})
	l.signal()
	if len(callers) > 0 {
		return
	}
	delete(l.wants, service)
	l.views.Drop(service)
	delete(l.holds, service)
	delete(l.rules, service)
	if l.config.OnForget != nil {
		l.config.OnForget(service) // under mu: a Subscribe that follows comes after it
	}
}

// Seed gives the link a state that is known from elsewhere, to resume from; false if it holds one that is not older.
func (l *Link) Seed(v view.View) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch, revision, ok := l.views.At(v.Service); ok && (epoch != v.Epoch || revision >= v.Revision) {
		return false
	}
	l.views.Put(v)
	return true
}

// subscription says what is already held. Callers hold mu.
func (l *Link) subscription(caller, service string) *l5pb.Subscription {
	held, _ := l.stands(service)
	out := &l5pb.Subscription{Service: service, Caller: caller, Epoch: held.Epoch, Revision: held.Revision, Verdict: l.wants[service][caller]}
	if rules := l.rules[service]; rules.GetEpoch() == held.Epoch {
		out.Settings = rules.GetRevision()
	}
	return out
}

func (l *Link) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run keeps the stream until ctx ends, which it returns.
func (l *Link) Run(ctx context.Context) error {
	var releasing sync.WaitGroup
	releasing.Go(func() { l.release(ctx) })
	defer releasing.Wait()
	client, hangUp := l.config.Client, func() {}
	defer func() { hangUp() }()
	var backoff Backoff
	for told := false; ; {
		err := l.stream(ctx, client, &backoff, func() { told = false })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errSilent) && l.config.Dial != nil {
			l.patience = min(2*l.patience, maxPatience)
			hangUp()
			fresh, end, failed := l.config.Dial()
			if failed != nil {
				fresh, end, err = l.config.Client, func() {}, errors.Join(err, failed)
			}
			client, hangUp = fresh, end
		}
		if !told {
			told = true // once, not for each attempt
			l.state(false, err)
		}
		if err := backoff.Wait(ctx); err != nil {
			return err
		}
	}
}

// state says that there is a stream, or none.
func (l *Link) state(connected bool, err error) {
	l.mu.Lock()
	if connected {
		l.down = make(chan struct{})
	} else {
		close(l.down)
	}
	l.mu.Unlock()
	if l.config.OnState != nil {
		l.config.OnState(connected, err)
	}
}

// Heard returns when the stream last said something, and whether there is none now.
func (l *Link) Heard() (at time.Time, silent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.down:
		return l.heard, true
	default:
		return l.heard, false
	}
}

// Down returns a channel that is closed as soon as there is no stream and an attempt to open one has failed.
func (l *Link) Down() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down
}

// stream is one life of the stream. It returns why it ended.
func (l *Link) stream(ctx context.Context, client l5pbconnect.NameServiceClient, backoff *Backoff, opened func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream := client.Watch(ctx)
	defer stream.CloseResponse()
	if err := stream.Send(l.Hello()); err != nil {
		_, err = stream.Receive() // the error of Send is io.EOF; this one says why
		return errors.Join(err, stream.CloseRequest())
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		defer cancel(nil)
		for l.sendNext(ctx, stream.Send) == nil {
			continue
		}
		stream.CloseRequest()
	})
	defer sending.Wait()
	defer cancel(nil)
	watch := l.watchdog(cancel)
	defer watch.timer.Stop()
	for {
		response, err := stream.Receive()
		if err != nil {
			if errors.Is(context.Cause(ctx), errSilent) {
				return errSilent
			}
			return err
		}
		if watch.messages == 0 {
			opened()
			backoff.Reset()
			l.state(true, nil)
		}
		l.mu.Lock()
		l.heard = l.config.Now()
		l.mu.Unlock()
		if err := watch.heard(response); err != nil {
			return err
		}
		l.Apply(response)
		watch.await()
	}
}

// sendNext waits for something to send, and sends it.
func (l *Link) sendNext(ctx context.Context, send func(*l5pb.WatchRequest) error) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.wake:
	}
	request := l.Pending()
	if len(request.Subscribe)+len(request.Unsubscribe)+len(request.Answers)+len(request.Doubts) == 0 {
		return nil
	}
	return send(request)
}

// Pending returns what is to be sent on the open stream, once. Run calls it.
func (l *Link) Pending() *l5pb.WatchRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	request := &l5pb.WatchRequest{Subscribe: l.outbox, Unsubscribe: l.gone, Answers: l.answers, Doubts: l.doubts}
	l.outbox, l.gone, l.answers, l.doubts = nil, nil, nil, nil
	return request
}

// Hello returns the first message of a stream: everything subscribed to, and what is held of it. Run calls it.
func (l *Link) Hello() *l5pb.WatchRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	request := &l5pb.WatchRequest{Peer: l.config.Peer, Device: l.config.Device, ProgressMs: uint32(l.config.ProgressEvery.Milliseconds())}
	for service, callers := range l.wants {
		for caller := range callers {
			request.Subscribe = append(request.Subscribe, l.subscription(caller, service))
		}
	}
	slices.SortFunc(request.Subscribe, func(a, b *l5pb.Subscription) int {
		return strings.Compare(a.GetService()+"\x00"+a.GetCaller(), b.GetService()+"\x00"+b.GetCaller())
	})
	l.outbox, l.gone, l.answers, l.doubts, l.sharing = nil, nil, nil, nil, false
	return request
}

// Apply takes one message of the stream. Kinds that it does not know are skipped. Run calls it.
func (l *Link) Apply(response *l5pb.WatchResponse) {
	switch kind := response.GetKind().(type) {
	case *l5pb.WatchResponse_Verdict:
		l.verdict(kind.Verdict)
	case *l5pb.WatchResponse_Snapshot:
		l.snapshot(kind.Snapshot)
	case *l5pb.WatchResponse_Delta:
		l.delta(kind.Delta)
	case *l5pb.WatchResponse_Settings:
		l.settings(kind.Settings)
	case *l5pb.WatchResponse_Ask:
		if l.config.OnAsk != nil {
			l.answer(kind.Ask)
		}
	case *l5pb.WatchResponse_Place:
		if l.config.OnPlace != nil {
			l.config.OnPlace(kind.Place)
		}
	case *l5pb.WatchResponse_Health:
		l.health(kind.Health)
	}
}

// verdict hands a verdict on, and notes that it need not come again.
func (l *Link) verdict(verdict *l5pb.Verdict) {
	l.mu.Lock()
	if callers := l.wants[verdict.GetService()]; callers != nil {
		if _, wanted := callers[verdict.GetCaller()]; wanted {
			callers[verdict.GetCaller()] = view.VerdictSum(verdict.GetAllowed(), verdict.GetReason())
		}
	}
	l.mu.Unlock()
	l.config.OnVerdict(verdict)
}

// settings takes the settings of a service, unless newer ones are held.
func (l *Link) settings(next *l5pb.Settings) {
	l.mu.Lock()
	held := l.rules[next.GetService()]
	stale := held != nil && held.GetEpoch() == next.GetEpoch() && held.GetRevision() >= next.GetRevision()
	if stale || !l.wanted(next.GetService()) {
		l.mu.Unlock()
		return
	}
	l.rules[next.GetService()] = next
	l.mu.Unlock()
	if l.config.OnSettings != nil {
		l.config.OnSettings(next)
	}
}

// answer sends what OnAsk says.
func (l *Link) answer(ask *l5pb.Ask) {
	answer := &l5pb.Answer{Id: ask.GetId(), Explanation: l.config.OnAsk(ask.GetService())}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers = append(l.answers, answer)
	l.signal()
}

// SeedSettings gives the link settings that are known from elsewhere.
func (l *Link) SeedSettings(settings *l5pb.Settings) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules[settings.GetService()] = settings
}

func (l *Link) snapshot(snapshot *l5pb.Snapshot) {
	l.order.Lock()
	defer l.order.Unlock()
	l.mu.Lock()
	newest, known := l.stands(snapshot.GetService())
	same := known && newest.Epoch == snapshot.GetEpoch() && newest.Revision == snapshot.GetRevision()
	if !l.wanted(snapshot.GetService()) || same || known && !newest.Supersedes(snapshot) {
		l.mu.Unlock()
		return
	}
	l.use(view.Of(snapshot), view.View{}, nil)
}

func (l *Link) delta(delta *l5pb.Delta) {
	l.order.Lock()
	defer l.order.Unlock()
	l.mu.Lock()
	newest, known := l.newest(delta.GetService())
	if !l.wanted(delta.GetService()) {
		l.mu.Unlock()
		return
	}
	next, err := newest.Advance(delta)
	if !known || err != nil {
		l.again(delta.GetService())
		l.mu.Unlock()
		if l.config.OnResync != nil {
			l.config.OnResync(delta.GetService())
		}
		return
	}
	if next.Revision == newest.Revision {
		l.mu.Unlock()
		return
	}
	l.use(next, newest, delta)
}

// again asks for the whole state of a service. Callers hold mu.
func (l *Link) again(service string) {
	for caller, verdict := range l.wants[service] {
		l.outbox = append(l.outbox, &l5pb.Subscription{Service: service, Caller: caller, Verdict: verdict})
	}
	l.signal()
}

// Lost says that the Store cannot read the state of a service any more: it is asked for anew.
func (l *Link) Lost(service string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.again(service)
}

// use puts next into use, or holds it back. It was made from base by change; both are empty for a snapshot. Callers hold
// order, and mu, which they lose.
func (l *Link) use(next, base view.View, change *l5pb.Delta) {
	if !l.admit(next, l.config.Now()) {
		l.mu.Unlock()
		return
	}
	if epoch, revision, _ := l.views.At(next.Service); change.GetPrevious() != revision || epoch != next.Epoch {
		change = nil // it led here from a state that was held back
	}
	l.common.intern(base, next)
	l.views.Put(next)
	l.mu.Unlock()
	l.config.OnView(next, change)
}

// wanted reports whether any caller subscribes to service. Callers hold mu.
func (l *Link) wanted(service string) bool { return len(l.wants[service]) > 0 }
