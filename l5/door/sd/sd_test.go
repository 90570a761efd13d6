package sd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/door/sd"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// only grants all but one service.
type only string

func (o only) MayCall(_, service string) bool { return service != string(o) }
func (only) Changed() <-chan struct{}         { return nil }

func serve(t *testing.T, s *l5test.Server, edit func(*sd.Config)) string {
	t.Helper()
	a, _ := l5test.Agent(t, s.Target(), nil)
	config := sd.Config{Names: a, Caller: "test", Listen: "127.0.0.1:0"}
	if edit != nil {
		edit(&config)
	}
	d, err := sd.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	addr, err := d.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + addr.String()
}

func get(t *testing.T, request *http.Request) (int, string) {
	t.Helper()
	response, err := http.DefaultClient.Do(request.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, func(c *server.Config) { c.Grants = only("shop.secret") })
	instances := []l5.Instance{
		{Service: "shop.cart", Addr: "10.0.0.1:80", Share: 100, Device: "web-1", Module: "shop.cart", Labels: map[string]string{"tier-1": "a"}},
		{Service: "shop.cart", Addr: "[::1]:80", Share: 0},
	}
	if err := s.Name().Register(t.Context(), instances); err != nil {
		t.Fatal(err)
	}
	base := serve(t, s, func(c *sd.Config) { c.Token, c.MaxServices = "letmein", 3 })
	for name, c := range map[string]struct {
		query  string
		edit   func(*http.Request)
		status int
	}{
		"a service":       {"?service=shop.cart", nil, 200},
		"two":             {"?service=shop.cart&service=nobody", nil, 200},
		"none":            {"", nil, 400},
		"a bad name":      {"?service=a%20b", nil, 400},
		"too many":        {"?service=a&service=b&service=c&service=d", nil, 400},
		"no grant":        {"?service=shop.secret", nil, 403},
		"no token":        {"?service=shop.cart", func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		"a wrong token":   {"?service=shop.cart", func(r *http.Request) { r.Header.Set("Authorization", "Bearer no") }, 401},
		"a rebound name":  {"?service=shop.cart", func(r *http.Request) { r.Host = "evil.example" }, 403},
		"another site":    {"?service=shop.cart", func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }, 403},
		"another request": {"?service=shop.cart", func(r *http.Request) { r.Method = "POST" }, 405},
	} {
		request, err := http.NewRequest("GET", base+"/sd"+c.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer letmein")
		if c.edit != nil {
			c.edit(request)
		}
		status, body := get(t, request)
		if status != c.status {
			t.Errorf("%s: %d, want %d: %s", name, status, c.status, body)
		}
		if status != 200 {
			continue
		}
		var got any
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		want := []any{
			map[string]any{"targets": []any{"10.0.0.1:80"}, "labels": map[string]any{
				"__meta_zhiyun_service": "shop.cart", "__meta_zhiyun_state": "up", "__meta_zhiyun_device": "web-1",
				"__meta_zhiyun_module": "shop.cart", "__meta_zhiyun_label_tier_1": "a",
			}},
			map[string]any{"targets": []any{"[::1]:80"}, "labels": map[string]any{"__meta_zhiyun_service": "shop.cart", "__meta_zhiyun_state": "up"}},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// A real Prometheus finds the instances, scrapes them, and lets go of one that left.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("ZHIYUN_REQUIRE") == "1" {
			t.Fatal("prometheus is required and not installed")
		}
		t.Skip("prometheus is not installed")
	}
	s := l5test.NewServer(t, nil)
	base := serve(t, s, nil)
	var addrs []string
	for range 2 {
		target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "answer 42") }))
		defer target.Close()
		addrs = append(addrs, strings.TrimPrefix(target.URL, "http://"))
		if err := s.Name().Register(t.Context(), []l5.Instance{{Service: "shop.cart", Addr: addrs[len(addrs)-1], Share: 100, Device: "web-1"}}); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf(`
global: {scrape_interval: 500ms, scrape_timeout: 500ms}
scrape_configs:
  - job_name: shop
    http_sd_configs: [{url: "%s/sd?service=shop.cart", refresh_interval: 200ms}]
    relabel_configs:
      - {source_labels: [__meta_zhiyun_service], target_label: service}
      - {source_labels: [__meta_zhiyun_device], target_label: device}
`, base)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	web := addrtest.Free(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	command := exec.CommandContext(ctx, path, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+web)
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 20 * time.Second
	var log strings.Builder
	command.Stderr = &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = command.Wait() // it was told to end
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	up := func() (n int) {
		response, err := http.Get("http://" + web + "/api/v1/query?query=" + "answer%7Bservice=%22shop.cart%22,device=%22web-1%22%7D")
		if err != nil {
			return -1
		}
		defer response.Body.Close()
		var answer struct{ Data struct{ Result []any } }
		if json.NewDecoder(response.Body).Decode(&answer) != nil {
			return -1
		}
		return len(answer.Data.Result)
	}
	l5test.Await(t, "both instances are scraped", func() bool { return up() == 2 })
	if err := s.Name().Deregister(t.Context(), "shop.cart", addrs[0]); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "the one that left is forgotten", func() bool { return up() == 1 })
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := sd.New(sd.Config{Listen: "10.0.0.1:80", Services: []string{"no such"}, Wait: -1})
	for _, want := range []string{"Names", "Caller", "Listen", "Services", "Wait"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}
