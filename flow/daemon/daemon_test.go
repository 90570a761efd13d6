package daemon_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow/daemon"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

func TestDaemon(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "flow") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, content := range map[string]string{
		"hello.json": `{"name": "hello", "command": ["/bin/sh", "-c", "echo '{\"text\": \"hi\"}'"], "effect": "pure", "timeout": "5s"}`,
		"hello.yaml": "flow: hello\nparams: {n: {type: int, required: true}}\nsteps: [{name: a, tool: hello, with: {n: \"${params.n}\"}}]",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := daemon.New(daemon.Config{Listen: "unix://" + dir + "/s", Data: filepath.Join(dir, "data"), Flows: dir, Manifests: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	target, err := d.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client, base, err := transport.Dial(transport.DialConfig{Target: target})
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	if status, body := post(t, client, base+"/v1/flows/hello/executions", `{"m": 1}`); status != 400 || !strings.Contains(body, `parameter \"n\" (int) is required`) {
		t.Errorf("start without its parameter: %d %s", status, body)
	}
	status, body := post(t, client, base+"/v1/flows/hello/executions?by=tester", `{"n": 1}`)
	if status != 200 {
		t.Fatalf("start: %d %s", status, body)
	}
	id := strings.Split(body, `"`)[3]
	response, err := client.Get(base + "/v1/executions/" + id + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	last := ""
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		last = lines.Text()
	}
	if !strings.Contains(last, "execution.done") {
		t.Errorf("last event: %s", last)
	}
	if status, body := post(t, client, base+"/v1/executions/"+id+"/cancel", ""); status != 409 {
		t.Errorf("cancel of what is done: %d %s", status, body)
	}
	if status, body := post(t, client, base+"/v1/executions/nobody/pause", ""); status != 404 {
		t.Errorf("pause of nothing: %d %s", status, body)
	}
	for query, want := range map[string]string{
		"state=stuck":          `200 {"executions":[],"next":""}`,
		"state=done&state=bog": `400 {"error":"invalid: state \"bog\": it is one of [\"running\" \"compensating\" \"stuck\" \"done\" \"failed\" \"cancelled\"]"}`,
	} {
		response, err := client.Get(base + "/v1/executions?" + query)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if got := fmt.Sprintf("%d %s", response.StatusCode, body); err != nil || strings.TrimSpace(got) != want {
			t.Errorf("list of %s: %s, %v; want %s", query, got, err, want)
		}
	}
}

func post(t *testing.T, client *http.Client, url, body string) (int, string) {
	t.Helper()
	response, err := client.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

func TestStoreIsPostgreSQLOrAFolder(t *testing.T) {
	t.Parallel()
	for _, config := range []daemon.Config{{Listen: "unix:///s"}, {Listen: "unix:///s", Store: "sqlite:///srv/flow.db"}} {
		if _, err := daemon.New(config); err == nil || !strings.Contains(err.Error(), "field") {
			t.Errorf("%+v: %v", config, err)
		}
	}
	if _, err := daemon.New(daemon.Config{Listen: "unix:///s", Store: "postgres://zhiyun@db/flows"}); err != nil {
		t.Error(err)
	}
}
