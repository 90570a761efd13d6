package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// StartOption says more about a start.
type StartOption func(*startOptions)

type startOptions struct {
	key, actor, reason, exempt string
	as                         []string
	caller                     *run
	version                    int
}

// Key makes a start idempotent: a flow is started once per key, and starting it again with the same parameters returns the same ID, whatever
// versions were saved meanwhile. With other parameters, secrets aside, it is an *ExistsError. Default: none, each start is another execution.
func Key(key string) StartOption { return func(o *startOptions) { o.key = key } }

// By names who starts the execution.
func By(actor string) StartOption { return func(o *startOptions) { o.actor = actor } }

// Because says why.
func Because(reason string) StartOption { return func(o *startOptions) { o.reason = reason } }

// Exempt has the execution go on through freezes; the reason says why, and is kept.
func Exempt(reason string) StartOption { return func(o *startOptions) { o.exempt = reason } }

// As says who starts the execution, as was proved: names, and "role:NAME" for roles. They decide whether the flow's start.by lets them. Default: the
// actor, whom a caller in the same process is trusted to know.
func As(names ...string) StartOption { return func(o *startOptions) { o.as = names } }

// called says that the execution is a sub-flow.
func called(by *run) StartOption { return func(o *startOptions) { o.caller = by } }

// atVersion starts this version of the flow. Default: the latest.
func atVersion(n int) StartOption { return func(o *startOptions) { o.version = n } }

// ExistsError says that the key of a start was used for another one: the same flow with other parameters. It is an ErrExists.
type ExistsError struct {
	Flow, Key string
	Execution string   // that the key has started
	Differ    []string // the parameters that are not the same, by name
}

func (e *ExistsError) Error() string {
	return fmt.Sprintf("%s: the key %q has started execution %s with other parameters (%s); repeat those, or give this start a key of its own",
		ErrExists, e.Key, e.Execution, strings.Join(e.Differ, ", "))
}

// Is makes errors.Is(err, ErrExists) true.
func (e *ExistsError) Is(target error) bool { return target == ErrExists }

// starting is a start that was checked.
type starting struct {
	startOptions
	p      *program
	given  map[string]any
	params map[string]any // as the flow sees them: checked, defaults filled in
}

// prepare checks a start, but not whether there is room for it, nor what its key has started.
func (e *Engine) prepare(ctx context.Context, name string, params map[string]any, options []StartOption) (*starting, error) {
	s := &starting{given: params}
	for _, option := range options {
		option(&s.startOptions)
	}
	var err error
	if s.p, err = e.program(ctx, name, s.version); err != nil {
		return nil, err
	}
	return s, s.p.mayStart(&s.startOptions)
}

// bind checks the parameters.
func (s *starting) bind() (err error) {
	s.params, err = s.p.bind(s.given)
	return err
}

// before returns the execution that the start's key has begun; "" is none.
func (e *Engine) before(ctx context.Context, s *starting) (string, error) {
	if s.key == "" {
		return "", nil
	}
	row, err := e.config.Store.ByKey(ctx, s.p.Name, s.key)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return row.ID, e.same(ctx, s, row.ID)
}

// same compares a start with the execution that its key has begun. Parameters are read as that one's version reads them: a default that has
// changed since makes no other start of it. A sub-flow's key is the engine's own, and made of what calls it.
func (e *Engine) same(ctx context.Context, s *starting, id string) error {
	if s.caller != nil {
		return nil
	}
	records, err := e.config.Store.History(ctx, id, 0, 1)
	if err != nil || len(records) == 0 {
		return err // of none is known to a StartTx whose own transaction has started it
	}
	events, err := DecodeEvents(id, records[0])
	if err != nil || len(events) == 0 {
		return err
	}
	def, err := e.definition(ctx, s.p.Name, events[0].Version)
	if err != nil {
		return err
	}
	exists := &ExistsError{Flow: s.p.Name, Key: s.key, Execution: id, Differ: def.unequal(s.given, events[0].Params)}
	if len(exists.Differ) > 0 {
		return exists
	}
	return nil
}

func decodeParams(data json.RawMessage) (map[string]any, error) {
	value, err := expr.Decode(data, nil)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%w: parameters must be an object", ErrInvalid)
	}
	return object, nil
}

// Start starts the latest version of a flow and returns the execution's ID once the start is durable. Faults of the
// parameters are reported all at once, as an ErrInvalid. A flow that is not there is an ErrNotFound; a Key that has started it with other
// parameters is an *ExistsError.
func (e *Engine) Start(ctx context.Context, name string, params map[string]any, options ...StartOption) (string, error) {
	id, err := e.begin(ctx, name, params, options)
	if err != nil {
		return "", fmt.Errorf("flow: start %s: %w", name, err)
	}
	return id, nil
}

func (e *Engine) begin(ctx context.Context, name string, params map[string]any, options []StartOption) (string, error) {
	s, err := e.prepare(ctx, name, params, options)
	if err != nil {
		return "", err
	}
	if id, err := e.before(ctx, s); id != "" || err != nil {
		return id, err
	}
	if err := s.bind(); err != nil {
		return "", err
	}
	for {
		id, member, err := e.start(ctx, s)
		if errors.Is(err, ErrFenced) {
			e.lost(member)
			continue // nothing was written; whoever claims it runs it
		}
		return id, err
	}
}

// start is one try of Start, for a member of a Shared store or 0.
func (e *Engine) start(ctx context.Context, s *starting) (_ string, member int64, _ error) {
	id, err := newID()
	if err != nil {
		return "", 0, err
	}
	e.mu.Lock()
	live := e.running && !e.draining
	if e.shared != nil && live {
		member = e.part.current()
		live = member != 0
	}
	e.mu.Unlock()
	if err := e.room(&s.startOptions); err != nil {
		return "", member, err
	}
	r, fresh := e.reserve(id, member)
	if !fresh {
		return "", member, ErrFenced // just now
	}
	room := e.rooms.get()
	defer e.rooms.put(room)
	first := s.started(s.p, s.params)
	for err = ErrLocked; errors.Is(err, ErrLocked); { // by another engine, of which the gate knows the next time
		x := newExecution(&s.p.Definition, id)
		m := &machine{p: s.p, x: x, now: now(), hold: !live, events: room.events, actions: room.actions, gate: r}
		m.emit(first)
		r.bind(s.p, x)
		m.step(input{kind: inGo})
		err = r.settle(m, 0, nil)
		room.events, room.actions = emptied(m.events), emptied(m.actions)
	}
	switch {
	case errors.Is(err, ErrExists):
		id, err := e.before(ctx, s)
		if err == nil && id == "" {
			err = ErrExists // it has been removed since
		}
		return id, member, err
	case err != nil:
		return "", member, err
	}
	if !live && e.shared != nil {
		e.forget(r)
		e.poke() // whoever looks first claims it
		return id, member, nil
	}
	if !live {
		e.forget(r)
		// Run may have begun, and listed what is open, while the start was on its way.
		e.mu.Lock()
		live = e.running && !e.draining
		e.mu.Unlock()
		if live {
			return id, member, e.adopt(ctx, id, member)
		}
		return id, member, nil
	}
	if r.x.State.Ended() {
		r.launch()
		e.forget(r)
		return id, member, nil
	}
	r.drive().launch()
	return id, member, nil
}
