package flow_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// toolProcess is the test binary as a tool, which does what its input says.
func toolProcess(kind string) int {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	for served := 0; ; served++ {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return 0
		}
		var call struct {
			ID    string `json:"id"`
			Key   string `json:"key"`
			Plan  bool   `json:"plan"`
			Input struct {
				Do   string `json:"do"`
				Text string `json:"text"`
			} `json:"input"`
		}
		if kind == "echo" { // the cheapest that can serve
			id, _, _ := strings.Cut(strings.TrimPrefix(string(line), `{"id":"`), `"`)
			os.Stdout.WriteString(`{"id":"` + id + `","output":{"text":"x"}}` + "\n")
			continue
		}
		if err := json.Unmarshal(line, &call); err != nil {
			return 3
		}
		fmt.Fprintf(os.Stderr, "log of %s\n", call.ID)
		switch call.Input.Do {
		case "die":
			fmt.Fprintln(os.Stderr, "last words")
			return 7
		case "hang":
			child := exec.Command("sleep", "3600")
			_ = child.Start()
			_ = os.WriteFile(call.Input.Text, []byte(strconv.Itoa(child.Process.Pid)), 0o600)
			select {}
		case "garbage":
			fmt.Println("hello there")
		case "wrong":
			fmt.Println(`{"id": "of another", "output": {}}`)
		case "big":
			fmt.Printf(`{"id": %q, "output": {"text": %q}}`+"\n", call.ID, strings.Repeat("x", 2<<20))
		case "fail":
			fmt.Printf(`{"id": %q, "error": {"code": "full", "message": "no room", "retry": false}}`+"\n", call.ID)
		case "chatty":
			fmt.Printf(`{"id": %q, "output": {"pid": "%d"}}`+"\n{}\n", call.ID, os.Getpid())
		case "plan":
			fmt.Printf(`{"id": %q, "output": {"touches": [{"kind": "file", "name": "%t"}]}}`+"\n", call.ID, call.Plan)
		default:
			fmt.Printf(`{"id": %q, "output": {"pid": "%d", "text": %q, "served": "%d"}}`+"\n", call.ID, os.Getpid(), call.Input.Text, served)
		}
	}
}

func residentTools(t testing.TB, m flow.Manifest) *flow.Tools {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m.Name, m.Command = "echo", []string{exe}
	if m.Resident == nil {
		m.Resident = &flow.Resident{}
	}
	tools := flow.NewTools()
	tools.Exec(m)
	if err := tools.Err(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tools.Close)
	return tools
}

var talker = []string{"ZHIYUN_TEST_TOOL=talk"}

func ask(t *testing.T, tools *flow.Tools, id, do, text string) (flow.Result, map[string]string) {
	t.Helper()
	input, _ := json.Marshal(map[string]string{"do": do, "text": text})
	result := tools.Run(t.Context(), flow.Call{ID: id, Tool: "echo", Key: "k", Input: input, Timeout: time.Minute}, talker)
	var out map[string]string
	if result.Error == nil {
		if err := json.Unmarshal(result.Output, &out); err != nil {
			t.Fatalf("%s: %v", result.Output, err)
		}
	}
	return result, out
}

func TestResidentProcessStays(t *testing.T) {
	t.Parallel()
	tools := residentTools(t, flow.Manifest{})
	var pid string
	for i := range 5 {
		id := fmt.Sprint("call-", i)
		result, out := ask(t, tools, id, "", "a\nb")
		if result.Error != nil || out["text"] != "a\nb" || out["served"] != strconv.Itoa(i) {
			t.Fatalf("%+v, output %v", result.Error, out)
		}
		if want := "log of " + id + "\n"; result.Logs != want {
			t.Errorf("logs %q, want %q", result.Logs, want)
		}
		if pid != "" && out["pid"] != pid {
			t.Errorf("call %d was served by process %s, the last by %s", i, out["pid"], pid)
		}
		pid = out["pid"]
	}
	tools.Close()
	tools.Close()
	if number, _ := strconv.Atoi(pid); syscall.Kill(number, 0) == nil {
		t.Error("the process outlives Close")
	}
	if result, _ := ask(t, tools, "late", "", ""); result.Error == nil || result.Error.Code != flow.CodeTool {
		t.Errorf("a call after Close: %+v", result)
	}
}

// What breaks a process costs its call alone: the next one is served by a new process.
func TestResidentProcessIsReplaced(t *testing.T) {
	t.Parallel()
	tools := residentTools(t, flow.Manifest{Resident: &flow.Resident{Processes: 1}})
	for _, tc := range []struct {
		do, code, says string
		unknown, stays bool
	}{
		{do: "die", code: flow.CodeLost, unknown: true, says: "exit status 7: last words"},
		{do: "garbage", code: flow.CodeOutput, says: "hello there"},
		{do: "wrong", code: flow.CodeOutput, says: "of another"},
		{do: "big", code: flow.CodeOutput, says: "reference"},
		{do: "fail", code: "full", says: "no room", stays: true},
	} {
		_, before := ask(t, tools, "before", "", "")
		result, _ := ask(t, tools, "x", tc.do, "")
		if result.Error == nil || result.Error.Code != tc.code || result.Error.Unknown != tc.unknown || !strings.Contains(result.Error.Message, tc.says) {
			t.Errorf("%s: %+v, want code %s saying %q, unknown %t", tc.do, result.Error, tc.code, tc.says, tc.unknown)
		}
		if !strings.HasPrefix(result.Logs, "log of x\n") {
			t.Errorf("%s: logs %q", tc.do, result.Logs)
		}
		_, after := ask(t, tools, "after", "", "")
		if same := before["pid"] == after["pid"]; same != tc.stays {
			t.Errorf("%s: served by %s, then by %s", tc.do, before["pid"], after["pid"])
		}
	}
	_, first := ask(t, tools, "1", "chatty", "")
	_, second := ask(t, tools, "2", "", "")
	if first["pid"] == second["pid"] {
		t.Error("a process that spoke unasked was used again")
	}
}

func TestHungResidentCallIsKilledWithItsGroup(t *testing.T) {
	t.Parallel()
	tools := residentTools(t, flow.Manifest{})
	file := filepath.Join(t.TempDir(), "pid")
	input, _ := json.Marshal(map[string]string{"do": "hang", "text": file})
	var data []byte
	err := os.ErrNotExist
	for timeout := 500 * time.Millisecond; err != nil; timeout *= 4 { // on a busy machine the process needs longer to come to hang
		result := tools.Run(t.Context(), flow.Call{ID: "x", Tool: "echo", Input: input, Timeout: timeout}, talker)
		if result.Error == nil || result.Error.Code != flow.CodeTimeout || !result.Error.Unknown {
			t.Fatalf("%+v, want an unknown end by timeout", result.Error)
		}
		if data, err = os.ReadFile(file); err != nil && timeout > time.Minute {
			t.Fatal(err)
		}
	}
	pid, err := strconv.Atoi(string(data))
	if err != nil {
		t.Fatal(err)
	}
	comesTrue(t, func() bool { return !alive(pid) }) // a child of the hung one
}

// alive says whether a process runs; one that nobody has reaped does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// comesTrue polls a condition outside of this process's control.
func comesTrue(t *testing.T, condition func() bool) {
	t.Helper()
	deadline, tick := time.NewTimer(time.Minute), time.NewTicker(time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("the condition did not come true within a minute")
		}
	}
}

func TestResidentPoolIsBounded(t *testing.T) {
	t.Parallel()
	tools := residentTools(t, flow.Manifest{Resident: &flow.Resident{Processes: 2}})
	var mu sync.Mutex
	pids := map[string]bool{} // guarded by mu
	var wait sync.WaitGroup
	for i := range 40 {
		wait.Go(func() {
			result, out := ask(t, tools, fmt.Sprint(i), "", "")
			if result.Error != nil || result.Logs != fmt.Sprintf("log of %d\n", i) {
				t.Errorf("call %d: %+v with logs %q", i, result.Error, result.Logs)
			}
			mu.Lock()
			defer mu.Unlock()
			pids[out["pid"]] = true
		})
	}
	wait.Wait()
	if len(pids) > 2 {
		t.Errorf("%d processes served, at most 2 may", len(pids))
	}
}

func TestBusyPoolDoesNotBegin(t *testing.T) {
	t.Parallel()
	tools := residentTools(t, flow.Manifest{Resident: &flow.Resident{Processes: 1}})
	file := filepath.Join(t.TempDir(), "pid")
	input, _ := json.Marshal(map[string]string{"do": "hang", "text": file})
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { tools.Run(ctx, flow.Call{ID: "x", Tool: "echo", Input: input}, talker) })
	comesTrue(t, func() bool { _, err := os.Stat(file); return err == nil })
	result := tools.Run(t.Context(), flow.Call{ID: "y", Tool: "echo", Input: []byte("{}"), Timeout: 20 * time.Millisecond}, talker)
	if result.Error == nil || result.Error.Code != flow.CodeTimeout || result.Error.Unknown {
		t.Errorf("%+v: want a timeout that is known to have had no effect", result.Error)
	}
	cancel()
	wait.Wait()
}

func TestResidentEndsWhenIdle(t *testing.T) {
	t.Parallel()
	tools := residentTools(t, flow.Manifest{Resident: &flow.Resident{Idle: flow.Duration(20 * time.Millisecond)}})
	_, out := ask(t, tools, "1", "", "")
	pid, _ := strconv.Atoi(out["pid"])
	comesTrue(t, func() bool { return !alive(pid) })
	if _, again := ask(t, tools, "2", "", ""); again["pid"] == "" || again["pid"] == out["pid"] {
		t.Errorf("then served by %q", again["pid"])
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	call := flow.Call{ID: "1", Tool: "echo", Key: "k", Input: []byte(`{"do": "plan"}`)}
	tools := residentTools(t, flow.Manifest{Plan: true, Effect: flow.Keyed})
	plan, err := tools.Plan(t.Context(), call, talker)
	if err != nil || !plan.Known || len(plan.Touches) != 1 || plan.Touches[0] != (flow.Touch{Kind: "file", Name: "true"}) {
		t.Errorf("%+v, %v", plan, err)
	}
	without := residentTools(t, flow.Manifest{Effect: flow.Keyed})
	if plan, err = without.Plan(t.Context(), call, talker); err != nil || plan.Known {
		t.Errorf("a tool without a plan mode: %+v, %v", plan, err)
	}
	pure := residentTools(t, flow.Manifest{Effect: flow.Pure})
	if plan, err = pure.Plan(t.Context(), call, talker); err != nil || !plan.Known || len(plan.Output) == 0 {
		t.Errorf("a pure tool: %+v, %v", plan, err)
	}
}

// The floor is the same process asked over the same pipes with nothing between.
func BenchmarkResident(b *testing.B) {
	env := []string{"ZHIYUN_TEST_TOOL=echo"}
	input := json.RawMessage(`{"from": "s1", "count": 3}`)
	b.Run("call", func(b *testing.B) {
		tools := residentTools(b, flow.Manifest{
			Input:  json.RawMessage(`{"type": "object", "properties": {"from": {"type": "string"}, "count": {"type": "integer"}}, "required": ["from"]}`),
			Output: json.RawMessage(`{"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}`),
		})
		b.ReportAllocs()
		for b.Loop() {
			if result := tools.Run(b.Context(), flow.Call{ID: "e-1/s1/0/1", Execution: "e-1", Step: "s1", Attempt: 1, Key: "e-1/s1", Tool: "echo", Input: input}, env); result.Error != nil {
				b.Fatal(result.Error)
			}
		}
	})
	b.Run("floor", func(b *testing.B) {
		exe, err := os.Executable()
		if err != nil {
			b.Fatal(err)
		}
		process := exec.Command(exe)
		process.Env = env
		in, err := process.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		out, err := process.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := process.Start(); err != nil {
			b.Fatal(err)
		}
		lines := bufio.NewReader(out)
		line := []byte(`{"id":"e-1/s1/0/1","tool":"echo","key":"e-1/s1","execution":"e-1","step":"s1","attempt":1,"input":{"from":"s1","count":3}}` + "\n")
		b.ReportAllocs()
		for b.Loop() {
			if _, err := in.Write(line); err != nil {
				b.Fatal(err)
			}
			if _, err := lines.ReadSlice('\n'); err != nil {
				b.Fatal(err)
			}
		}
		in.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = process.Wait()
	})
}
