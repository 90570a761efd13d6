package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/internal/control/controltest"
)

// codeOf is the exit code of a verb that ended so.
func codeOf(err error) int {
	_, code := ending(err, nil)
	return code
}

func TestEndings(t *testing.T) {
	by := signalled{syscall.SIGINT}
	for name, test := range map[string]struct {
		err, cause error
		message    string
		code       int
	}{
		"it worked":            {nil, nil, "", 0},
		"it failed":            {errors.New("no"), nil, "no", 1},
		"wrong call":           {usage("no"), nil, "no (see --help)", 2},
		"a tool's own code":    {cli.Exit("", 7), nil, "", 7},
		"too late":             {fmt.Errorf("ask: %w", context.DeadlineExceeded), nil, "ask: context deadline exceeded", 3},
		"ended by Ctrl-C":      {fmt.Errorf("watch: %w", context.Canceled), by, "", 130},
		"ended by SIGTERM":     {context.Canceled, signalled{syscall.SIGTERM}, "", 143},
		"failed, then Ctrl-C":  {errors.New("no"), by, "no", 1},
		"worked, then Ctrl-C":  {nil, by, "", 0},
		"cancelled by nobody":  {context.Canceled, nil, "context canceled", 1},
		"cancelled by the end": {context.Canceled, context.Canceled, "context canceled", 1},
	} {
		if message, code := ending(test.err, test.cause); message != test.message || code != test.code {
			t.Errorf("%s: %q with %d, want %q with %d", name, message, code, test.message, test.code)
		}
	}
}

// Who ends a watch knows that; the execution goes on, and the terminal stays clean.
func TestAWatchThatIsEndedSaysNothing(t *testing.T) {
	w := controltest.New(t)
	if _, err := w.Flow.Save(t.Context(), []byte(holdFlow)); err != nil {
		t.Fatal(err)
	}
	id, err := w.Flow.Start(t.Context(), "hold", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	app := newApp()
	app.Writer, app.ErrWriter = &onFirst{do: func() { cancel(signalled{syscall.SIGINT}) }}, &bytes.Buffer{}
	err = app.RunContext(ctx, []string{"zhiyun", "flow", "watch", "--server", w.Target, id})
	if message, code := ending(err, context.Cause(ctx)); message != "" || code != 130 {
		t.Errorf("it says %q and ends with %d: %v", message, code, err)
	}
}

// onFirst is a terminal on which something is done at the first line.
type onFirst struct{ do func() }

func (o *onFirst) Write(p []byte) (int, error) {
	o.do()
	return len(p), nil
}

// Every verb answers a flag that is not there, and an argument too many, alike.
func TestEveryVerbAnswersAWrongCallAlike(t *testing.T) {
	for name, command := range leaves("", newApp().Commands, map[string]*cli.Command{}) {
		calls := [][]string{append(strings.Fields(name), "--nosuch")}
		if !strings.Contains(command.ArgsUsage, "...") {
			calls = append(calls, append(strings.Fields(name), strings.Fields("a b c d e f g h")...))
		}
		for _, args := range calls {
			if out, err := run(t, args...); codeOf(err) != exitUsage {
				t.Errorf("%v ends with %d: %v\n%s", args, codeOf(err), err, out)
			}
		}
	}
}

// readings are calls of the verbs that only read, in a world of seed.
var readings = map[string]string{
	"get": "devices", "describe": "device spare", "plan": "SITE", "flow list": "", "flow show": "EXECUTION", "flow watch": "EXECUTION", "flow logs": "EXECUTION",
	"flow export": "EXECUTION", "flow lint": "FLOW", "flow definitions": "", "flow plan": "hold seconds=1", "flow graph": "hold", "flow diff": "hold 1", "flow check": "",
	"flow locks": "", "flow freezes": "", "trigger list": "", "trigger show": "nightly", "trigger history": "nightly", "gray list": "", "gray show": "r-1",
	"scale status": "", "scale orders": "", "drift list": "", "drift show": "spare/file/etc/motd", "drift compare": "spare other", "l5 resolve": "shop.cart", "l5 explain": "shop.cart",
	"l5 rules get": "shop.cart", "package list": "", "file list": "shop", "config get": "", "config render": "t", "permission list": "", "notify history": "", "notify mutes": "",
	"notify silences": "", "notify routes": "", "notify templates": "", "notify sinks": "", "device counts": "", "audit": "", "doctor": "", "token list": "", "tool list": "", "tool versions": "",
	"token enrol": "web-17", "token operator": "li", "token viewer": "board", "token metrics": "prometheus", "token agent": "web-17",
}

// Every verb that asks a server tells scripts that it was not there in the same way: the call may succeed later.
func TestEveryVerbSaysThatTheServerIsAway(t *testing.T) {
	_, names := seeded(t)
	for name, command := range leaves("", newApp().Commands, map[string]*cli.Command{}) {
		asks := false
		for _, flag := range command.Flags {
			asks = asks || flag.Names()[0] == "server"
		}
		if !asks || name == "agent" || name == "l5 call" { // which wait for it
			continue
		}
		args, reads := readings[name]
		if rehearsal, changes := rehearsals[name]; changes {
			args = strings.TrimPrefix(rehearsal.args, name)
			if rehearsal.args == "" {
				args = "shop.cart"
			}
		} else if !reads {
			t.Errorf("%s: how is it called? Add it to readings", name)
			continue
		}
		words := append(strings.Fields(name), strings.Fields(names.Replace(strings.NewReplacer("'", "").Replace(args)))...)
		if out, err := run(t, append(words, "--server", "http://127.0.0.1:1")...); codeOf(err) != exitNotNow || !strings.Contains(err.Error(), "cannot be reached") {
			t.Errorf("%v ends with %d: %v\n%s", words, codeOf(err), err, out)
		}
	}
}

// What is named and not there, what does not fit what was declared, and a document with a fault are faults of the call, whatever verb they are handed to. What is
// not possible as things stand is a failure.
func TestTheSameFaultIsTheSameExitCode(t *testing.T) {
	w, names := seeded(t)
	dir := t.TempDir()
	file := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	short := file("short", "hunter2\n")
	hook := file("hook.yaml", "trigger: hook\nflow: hold\nwebhook: {}\n")
	unknown := file("unknown.yaml", "trigger: hook\nflow: nosuch\nschedule: {cron: \"0 * * * *\"}\n")
	wrong := file("wrong.yaml", "trigger: hook\nflow: hold\nparams: {seconds: many}\nschedule: {cron: \"0 * * * *\"}\n")
	broken := file("broken.yaml", "flow: [\n")
	absent := "0190aaaa-0000-7000-8000-000000000000"
	for code, calls := range map[int][]string{
		exitUsage: {
			"flow run nosuch", "flow run hold minutes=1", "flow run hold seconds=many", "flow run hold seconds", "flow plan nosuch", "flow plan hold seconds=many", "flow graph nosuch",
			"flow diff nosuch", "flow show " + absent, "flow watch " + absent, "flow logs " + absent, "flow export " + absent, "flow cancel " + absent, "flow skip " + absent + " wait",
			"flow show " + absent[:8], "flow signal " + absent + " loaded", "flow migrate " + absent, "flow save " + broken, "flow save " + dir + "/none", "flow lint " + dir + "/none",
			"flow list --waits foo", "flow list --version -1", "flow list --state open", "flow list --since yesterday", "flow list --limit -1", "flow cancel --all",
			"trigger show nosuch", "trigger fire nosuch", "trigger delete nosuch", "trigger pause nosuch --reason x", "trigger apply " + dir + "/none",
			"trigger apply " + hook + " --secret-file " + short, "trigger apply " + hook + " --secret-file " + dir + "/none", "trigger apply " + hook, "trigger apply " + unknown, "trigger apply " + wrong, "trigger apply " + broken,
			"get device nosuch", "describe module nosuch", "get gadgets", "apply " + dir + "/none", "delete module nosuch", "device fault nosuch", "gray show nosuch", "gray abort nosuch",
			"drift show nosuch", "drift ignore nosuch --reason x", "drift list --state foo", "drift list --kind foo", "pause nosuch", "freeze --module nosuch --reason x", "freeze --until yesterday --reason x",
			"notify retry nosuch", "notify mute", "notify mute --all", "notify mute shop.cart --all", "notify set route " + dir + "/none", "notify remove route nosuch", "notify history --outcome foo", "notify silence",
			"config render nosuch --module shop.cart --device spare", "config template cart.json " + dir + "/none", "tool use nosuch 0123456789ab", "tool push " + dir, "package push cart 1.0.2 " + dir + "/none",
			"file push shop motd " + dir + "/none", "l5 rules set shop.cart " + dir + "/none", "l5 rules set shop.cart " + broken, "token revoke nosuch", "token list --role nosuch", "permission list --limit -1", "get devices --filter state=",
			"get devices -o xml", "get devices --token-file " + dir + "/none",
		},
		exitFailed: {"flow retry EXECUTION", "flow approve EXECUTION wait"},
	} {
		for _, call := range calls {
			if out, err := run(t, append(strings.Fields(names.Replace(call)), "--server", w.Target)...); codeOf(err) != code {
				t.Errorf("%s ends with %d, want %d: %v\n%s", call, codeOf(err), code, err, out)
			}
		}
	}
}

// A signal ends the context with itself as the cause, once.
func TestASignalEndsTheContext(t *testing.T) {
	ctx, stop := untilSignalled()
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
		t.Fatal("the signal did not end it")
	}
	if by := (signalled{}); !errors.As(context.Cause(ctx), &by) || by.signal != syscall.SIGTERM {
		t.Errorf("ended by %v", context.Cause(ctx))
	}
}
