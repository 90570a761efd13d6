package tools

import (
	"cmp"
	"log/slog"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// Env is what a tool works with.
type Env struct {
	// Client reaches the server. Required.
	Client *control.Client
	// Key makes a call one of a kind: the same key again changes nothing. Required by tools that change something.
	Key string
	// Execution is the flow execution that runs the tool, and holds the devices. Default: the key.
	Execution string
	// Actor and Reason go into the audit record. Default: "flow", and the step's name.
	Actor, Reason string
	// Logger gets what the tool does. Default: none.
	Logger *slog.Logger
	// Waits is told what the tool waits for, each time that changes. Default: nobody is.
	Waits func(text string)
}

// EnvFrom reads what the flow engine hands to the tools that it runs: ZHIYUN_SERVER (a target, as
// unix:///var/lib/zhiyun/control.sock), ZHIYUN_TOKEN_FILE, ZHIYUN_KEY, ZHIYUN_EXECUTION, ZHIYUN_STEP, ZHIYUN_ACTOR.
// done releases its connections.
func EnvFrom(getenv func(string) string) (env Env, done func(), err error) {
	env = Env{
		Key: getenv("ZHIYUN_KEY"), Execution: getenv("ZHIYUN_EXECUTION"),
		Actor: getenv("ZHIYUN_ACTOR"), Reason: getenv("ZHIYUN_STEP"),
	}
	target := getenv("ZHIYUN_SERVER")
	if target == "" {
		return env, func() {}, fail("env.server", "no server; set ZHIYUN_SERVER, as in unix:///var/lib/zhiyun/control.sock")
	}
	token, err := auth.ReadToken(getenv("ZHIYUN_TOKEN_FILE"))
	if err != nil {
		return env, func() {}, fail("env.token", "%v", err)
	}
	secure, err := transport.FilesFromEnv(getenv).TLS()
	if err != nil {
		return env, func() {}, fail("env.tls", "%v", err)
	}
	if env.Client, err = control.DialConfig(transport.DialConfig{Target: target, Token: token, TLS: secure}); err != nil {
		return env, func() {}, fail("env.server", "%v", err)
	}
	return env, env.Client.Close, nil
}

// check completes the defaults and tells what is missing.
func (e Env) check(keyed bool) (Env, error) {
	if e.Client == nil {
		return e, fail("env.server", "no client of a server")
	}
	if keyed && e.Key == "" {
		return e, fail("env.key", "no idempotency key; set ZHIYUN_KEY to any text that names this one call")
	}
	e.Execution = cmp.Or(e.Execution, e.Key)
	e.Actor = cmp.Or(e.Actor, "flow")
	if e.Logger == nil {
		e.Logger = slog.New(slog.DiscardHandler)
	}
	if e.Waits == nil {
		e.Waits = func(string) {}
	}
	return e, nil
}

// cause is why a tool asks.
func (e Env) cause() *pb.Cause {
	return &pb.Cause{Actor: e.Actor, Reason: e.Reason, Execution: e.Execution, Key: e.Key}
}
