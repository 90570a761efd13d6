package flow

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	residentProcesses = 4
	residentIdle      = time.Minute
	maxResident       = 256
)

// pool serves the calls of one tool by processes that stay.
//
//	(none) -start-> serving -answered-> free -next call-> serving
//	                   |                  |
//	                   |                  +-- idle for long, or Close: stdin is closed, it ends
//	                   +-- died, hung, or broke the protocol: killed with its group; the call tells why
//
// A process serves one call at a time, so that what it writes to stderr belongs to a call, and a hung call hinders no other.
type pool struct {
	program *executable
	idle    time.Duration
	slots   chan struct{}  // one for each process that serves
	tasks   sync.WaitGroup // of processes that end

	mu     sync.Mutex // guards what follows
	free   []*resident
	closed bool
}

// resident is one process. Whoever took it out of the pool's free list owns it.
type resident struct {
	running *running
	env     []string // that it was started with
	stdin   *os.File
	stdout  *os.File
	lines   *bufio.Reader
	errors  *os.File
	read    chan struct{} // closed when stderr has ended
	timer   *time.Timer   // ends it while it is free

	mu  sync.Mutex // guards what follows
	log *tail      // of the call that it serves, or of the time between
}

func newPool(program *executable, config Resident) *pool {
	if config.Processes == 0 {
		config.Processes = residentProcesses
	}
	if config.Idle == 0 {
		config.Idle = Duration(residentIdle)
	}
	size := min(max(config.Processes, 1), maxResident)
	return &pool{program: program, idle: time.Duration(config.Idle), slots: make(chan struct{}, size)}
}

// asked is the line that asks a resident process. The fields are those of a process's environment, by other names.
type asked struct {
	ID        string          `json:"id"`
	Tool      string          `json:"tool"`
	Key       string          `json:"key"`
	Execution string          `json:"execution,omitempty"`
	Step      string          `json:"step,omitempty"`
	Item      int             `json:"item,omitempty"`
	Attempt   int             `json:"attempt,omitempty"`
	Device    string          `json:"device,omitempty"`
	Undo      bool            `json:"undo,omitempty"`
	Probe     bool            `json:"probe,omitempty"`
	Plan      bool            `json:"plan,omitempty"`
	Input     json.RawMessage `json:"input"`
}

// answer is the line that it answers with.
type answer struct {
	ID     string          `json:"id"`
	Output json.RawMessage `json:"output"`
	Error  *said           `json:"error"`
}

// run serves a call.
func (p *pool) run(ctx context.Context, call Call, env []string) Result {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return Result{Error: errUnbegun}
	}
	defer func() { <-p.slots }()
	line, err := json.Marshal(asked{
		ID: call.ID, Tool: call.Tool, Key: call.Key, Execution: call.Execution, Step: call.Step, Item: call.Item, Attempt: call.Attempt,
		Device: call.Device, Undo: call.Undo, Probe: call.Probe, Plan: call.Plan, Input: call.Input,
	})
	if err != nil {
		return Result{Error: failure(CodeInput, "the input of %s is not JSON: %v", call.Tool, err)}
	}
	r, refused := p.take(ctx, env)
	if refused != nil {
		return Result{Error: refused}
	}
	logs := &tail{limit: MaxLogs, forward: call.Log}
	r.attribute(logs)
	stop := context.AfterFunc(ctx, r.running.stop)
	result, whole := r.exchange(call, append(line, '\n'))
	if !stop() { // it is being stopped, or has been
		<-r.running.ended
		whole = false
	}
	result.Ran.Limits = r.running.limits
	if whole {
		r.drain()
		result.Logs = logs.String()
		r.attribute(&tail{limit: MaxLogs})
		p.give(r)
		return result
	}
	r.running.stop()
	r.finish()
	result.Logs = logs.String()
	if result.Error != nil && result.Error.Code == CodeLost {
		if why := exitError(r.running.err, nil, result.Logs); r.running.err != nil {
			result.Error.Message += ": " + why.Message
		}
	}
	return result
}

// take returns a process that is free, or a new one. One that has died or has said something unasked meanwhile is replaced: the call has not
// reached it.
func (p *pool) take(ctx context.Context, env []string) (*resident, *Error) {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, failure(CodeTool, "tool %s is closed: its registry has been shut down", p.program.name)
		}
		if len(p.free) == 0 {
			p.mu.Unlock()
			break
		}
		r := p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
		p.mu.Unlock()
		r.timer.Stop()
		if slices.Equal(r.env, env) && r.quiet() && p.program.intact() {
			return r, nil
		}
		p.retire(r)
	}
	if ctx.Err() != nil {
		return nil, errUnbegun
	}
	return p.start(env)
}

// give puts a process back that has answered.
func (p *pool) give(r *resident) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.retire(r)
		return
	}
	p.free = append(p.free, r)
	if r.timer == nil {
		r.timer = time.AfterFunc(p.idle, func() { p.expire(r) })
	} else {
		r.timer.Reset(p.idle)
	}
}

// expire ends a process that has been free for long.
func (p *pool) expire(r *resident) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := slices.Index(p.free, r); at >= 0 && !p.closed {
		p.free = slices.Delete(p.free, at, at+1)
		p.retire(r)
	}
}

// shut ends what is free, and lets what serves end once it has answered.
func (p *pool) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, r := range p.free {
		r.timer.Stop()
		p.retire(r)
	}
	p.free = nil
}

// close is shut, and waits for all of it.
func (p *pool) close() {
	p.shut()
	for range cap(p.slots) { // all calls have ended
		p.slots <- struct{}{}
	}
	for range cap(p.slots) {
		<-p.slots
	}
	p.tasks.Wait()
}

// retire ends a process by the end of its stdin, and by force if that does not help.
func (p *pool) retire(r *resident) {
	p.tasks.Go(func() {
		r.stdin.Close()
		timer := time.NewTimer(killGrace)
		defer timer.Stop()
		select {
		case <-r.running.ended:
		case <-timer.C:
			r.running.stop()
		}
		r.finish()
	})
}

// start starts a process.
func (p *pool) start(env []string) (*resident, *Error) {
	process, err := p.program.process(env)
	if err != nil {
		return nil, failure(CodeDigest, "%v", err)
	}
	process.Env = append(process.Env, "ZHIYUN_RESIDENT=1")
	r := &resident{env: slices.Clone(env), read: make(chan struct{}), log: &tail{limit: MaxLogs}}
	var theirs []*os.File
	pipe := func(in bool) (ours *os.File) {
		a, b, fault := os.Pipe()
		if fault != nil {
			err = errors.Join(err, fault)
			return nil
		}
		if in {
			a, b = b, a
		}
		theirs = append(theirs, b)
		return a
	}
	r.stdin, r.stdout, r.errors = pipe(true), pipe(false), pipe(false)
	if err == nil {
		process.Stdin, process.Stdout, process.Stderr = theirs[0], theirs[1], theirs[2]
		r.running, err = launch(process, p.program.resources)
	}
	for _, file := range theirs {
		file.Close()
	}
	if err != nil {
		r.close()
		return nil, exitError(err, nil, "")
	}
	r.lines = bufio.NewReaderSize(r.stdout, 32<<10)
	go r.listen() // ends with the process's group, which has stderr; read tells
	return r, nil
}

// finish reads the rest of stderr, and closes all. A child that has left the group may hold stderr for longer than is waited for.
func (r *resident) finish() {
	timer := time.NewTimer(killGrace)
	defer timer.Stop()
	select {
	case <-r.read:
	case <-timer.C:
	}
	r.close()
	<-r.read
}

func (r *resident) close() {
	for _, file := range []*os.File{r.stdin, r.stdout, r.errors} {
		if file != nil {
			file.Close()
		}
	}
}

// exchange writes the call and reads its answer. whole is false if the process can serve no further call.
func (r *resident) exchange(call Call, line []byte) (result Result, whole bool) {
	if _, err := r.stdin.Write(line); err != nil {
		return Result{Error: &Error{Code: CodeLost, Message: fmt.Sprintf("%s ended while it took the call", call.Tool), Unknown: true}}, false
	}
	data, err := r.line()
	switch {
	case errors.Is(err, errTooLong):
		return Result{Error: failure(CodeOutput, "%s answered more than %d bytes; answer a reference instead", call.Tool, MaxOutput)}, false
	case err != nil:
		return Result{Error: &Error{Code: CodeLost, Message: fmt.Sprintf("%s ended before it answered", call.Tool), Unknown: true}}, false
	}
	var said answer
	if err := json.Unmarshal(data, &said); err != nil || said.ID != call.ID {
		return Result{Error: failure(CodeOutput, `%s answered %.80q; want one line, {"id": %q, "output": {...}}`, call.Tool, data, call.ID)}, false
	}
	if said.Error != nil {
		return Result{Error: said.Error.error()}, true
	}
	output, wrong := printedObject(call.Tool, said.Output)
	return Result{Output: output, Error: wrong}, true
}

var errTooLong = errors.New("flow: the line is too long")

// line reads one line, which is valid until the next is read.
func (r *resident) line() ([]byte, error) {
	data, err := r.lines.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return data, err
	}
	long := bytes.Clone(data)
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(long) > MaxOutput+4<<10 {
			return nil, errTooLong
		}
		data, err = r.lines.ReadSlice('\n')
		long = append(long, data...)
	}
	return long, err
}

// quiet says whether the process lives and has said nothing that was not asked for.
func (r *resident) quiet() bool {
	if r.lines.Buffered() > 0 {
		return false
	}
	n, err := peek(r.stdout, make([]byte, 1))
	return n < 0 && errors.Is(err, syscall.EAGAIN)
}

// attribute has what comes from stderr go to another log.
func (r *resident) attribute(log *tail) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = log
}

// listen reads stderr until it ends.
func (r *resident) listen() {
	defer close(r.read)
	raw, err := r.errors.SyscallConn()
	if err != nil {
		return
	}
	buffer := make([]byte, 4<<10)
	for ended := false; !ended; {
		err := raw.Read(func(fd uintptr) bool {
			n := r.pull(int(fd), buffer)
			ended = n == 0
			return n >= 0
		})
		if err != nil {
			return
		}
	}
}

// drain takes what stderr holds now: whatever the process wrote before its answer.
func (r *resident) drain() {
	raw, err := r.errors.SyscallConn()
	if err != nil {
		return
	}
	var buffer [4 << 10]byte
	_ = raw.Control(func(fd uintptr) {
		for r.pull(int(fd), buffer[:]) > 0 {
		}
	})
}

// pull reads once without waiting, and logs it. Reading and logging are one, so that nothing is on its way between them: who gets nothing knows
// that everything is logged. -1: nothing is there; 0: the end.
func (r *resident) pull(fd int, buffer []byte) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		n, err := syscall.Read(fd, buffer)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return -1
		case err != nil:
			return 0
		}
		if n > 0 {
			_, _ = r.log.Write(buffer[:n]) // never fails
		}
		return n
	}
}

// peek reads without waiting.
func peek(file *os.File, buffer []byte) (n int, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	fault := raw.Control(func(fd uintptr) { n, err = syscall.Read(int(fd), buffer) })
	if fault != nil {
		return 0, fault
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}
