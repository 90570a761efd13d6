package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/control/controltest"
)

// An operator types as much of an ID as tells it from others; of what is the beginning of several, each is told.
func TestIDsMayBeShortened(t *testing.T) {
	w := controltest.New(t)
	ids := asking(t, w, "shop.cart", "shop.web")
	slices.Sort(ids)
	same := 0
	for ids[0][same] == ids[1][same] {
		same++
	}
	short := ids[1][:same+1]
	zhiyun := func(args ...string) (string, int) {
		t.Helper()
		out, err := run(t, append(args, "--server", w.Target)...)
		if err != nil {
			out += err.Error()
		}
		return out, codeOf(err)
	}
	for _, verb := range [][]string{{"flow", "show"}, {"flow", "logs"}, {"flow", "export"}, {"flow", "skip", "--dry-run"}, {"flow", "list", "--parent"}, {"flow", "pause", "--dry-run"}} {
		step := []string{}
		if verb[1] == "skip" {
			step = append(step, "one")
		}
		if out, code := zhiyun(slices.Concat(verb, []string{short}, step)...); code != 0 {
			t.Errorf("%v %s ends with %d:\n%s", verb, short, code, out)
		}
		for _, several := range []string{ids[0][:same], ids[0][:4]} {
			if out, code := zhiyun(slices.Concat(verb, []string{several}, step)...); code != exitUsage || !strings.Contains(out, ids[0]+"  ask  stuck") || !strings.Contains(out, ids[1]) {
				t.Errorf("%v %s ends with %d:\n%s", verb, several, code, out)
			}
		}
		if out, code := zhiyun(slices.Concat(verb, []string{ids[0][:3]}, step)...); verb[1] != "list" && code != exitUsage {
			t.Errorf("%v with three letters ends with %d:\n%s", verb, code, out)
		}
	}
	if out, code := zhiyun("flow", "show", short); code != 0 || !strings.Contains(out, ids[1]) {
		t.Errorf("another was shown: %d\n%s", code, out)
	}
	if out, code := zhiyun("flow", "cancel", short, "--reason", "wrong module"); code != 0 {
		t.Errorf("cancel: %d\n%s", code, out)
	}
	if out, _ := zhiyun("audit", "--object", "execution/"+ids[1]); !strings.Contains(out, "flow.cancel") {
		t.Errorf("the audit record has another name of it:\n%s", out)
	}
	request := connect.NewRequest(&controlpb.ExecutionRequest{Id: short})
	request.Header().Set(controltest.AgentHeader, "d1")
	if _, err := w.Client.Flows.Get(t.Context(), request); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("a device shortens an ID: %v", err)
	}

	out, code := zhiyun("notify", "mute", "shop.cart", "-o", "json")
	var made []struct {
		Key string `json:"key"`
	}
	if err := json.Unmarshal([]byte(out), &made); err != nil || code != 0 || len(made) != 1 {
		t.Fatalf("mute: %d %v\n%s", code, err, out)
	}
	if out, code := zhiyun("notify", "unmute", made[0].Key[:8]); code != 0 {
		t.Errorf("unmute: %d\n%s", code, out)
	}
	if out, _ := zhiyun("notify", "mutes"); strings.Contains(out, made[0].Key) {
		t.Errorf("it is muted still:\n%s", out)
	}
}

// A parameter is what its declared type says, and programs get an object.
func TestParametersAreReadByTheirTypes(t *testing.T) {
	w := controltest.New(t)
	const typed = "flow: typed\nparams: {x: string, n: int, who: 'list<string>', pin: secret}\nsteps: [{name: one, tool: echo, with: {n: \"${params.n}\"}}]\n"
	if _, err := w.Flow.Save(t.Context(), []byte(typed)); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "flow", "run", "typed", "x=1", "n=2", "who=d1,d2", "pin=007", "-o", "json", "--server", w.Target)
	var started map[string]string
	if err != nil || json.Unmarshal([]byte(out), &started) != nil || started["id"] == "" {
		t.Fatalf("%v\n%s", err, out)
	}
	x, err := w.Flow.Wait(t.Context(), started["id"])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"x": "1", "n": 2.0, "who": []any{"d1", "d2"}, "pin": "******"}, x.Params); diff != "" {
		t.Errorf("started with other parameters (-want +got):\n%s", diff)
	}
	for args, says := range map[string]string{
		"n=two": `parameter "n" (int): "two" is no whole number`, "m=1": `no parameter "m"; it has x, n, who, pin`, "n=1 n=2": "each once",
	} {
		if _, err := run(t, append(append([]string{"flow", "run", "typed"}, strings.Fields(args)...), "--server", w.Target)...); codeOf(err) != exitUsage || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", args, err, says)
		}
	}
}

// A rehearsed save tells what differs from the version that is there.
func TestARehearsedSaveIsADiff(t *testing.T) {
	w, names := seeded(t)
	out, err := run(t, "flow", "save", names.Replace("FLOW"), "--dry-run", "--server", w.Target)
	if err != nil || !strings.Contains(out, "+ flow/hold/2, in place of version 1") || !strings.Contains(out, "steps.again") || strings.Contains(out, "steps.wait") {
		t.Errorf("%v\n%s", err, out)
	}
}

// The tools that were pushed are tools of the server.
func TestPushedToolsAreListed(t *testing.T) {
	w, _ := seeded(t)
	if _, err := run(t, "tool", "list", "--server", w.Target); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "tool", "list", "echo", "--server", w.Target)
	if err != nil || !strings.Contains(out, "echo") || strings.Contains(out, "reject") {
		t.Errorf("%v\n%s", err, out)
	}
}

// A table is cut to the terminal where it can be, and what a row is about is cut last.
func TestTablesFitTheTerminal(t *testing.T) {
	full := table{columns: []string{"ID", "STATE", "ERROR"}}
	full.add("019ab3f2-0000-7000-8000-000000000000", "stuck", strings.Repeat("long ", 30))
	full.add("b", "ok", "")
	for width, want := range map[int]string{0: "long long", 60: "…", 30: "…"} {
		got := full.cut(width)
		for i, row := range got.rows {
			n := 0
			for j := range row {
				widest := len(full.columns[j])
				for _, other := range got.rows {
					widest = max(widest, len([]rune(other[j])))
				}
				n += widest + 2
			}
			if width > 0 && n-2 > width {
				t.Errorf("width %d: row %d is %d wide: %q", width, i, n-2, row)
			}
		}
		if !strings.Contains(got.rows[0][2], want) || got.rows[1][0] != "b" {
			t.Errorf("width %d: %q", width, got.rows)
		}
		if width == 60 && got.rows[0][0] != full.rows[0][0] {
			t.Errorf("the ID was cut first: %q", got.rows[0])
		}
	}
	if got := full.cut(5); len([]rune(got.rows[0][0])) != leastCell {
		t.Errorf("too narrow for anything: %q", got.rows[0])
	}
}
