package json_test

import (
	"bufio"
	"context"
	stdjson "encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/door/json"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

const token = "0123456789abcdef"

// only grants all but one service.
type only string

func (o only) MayCall(_, service string) bool { return service != string(o) }
func (only) Changed() <-chan struct{}         { return nil }

// house is a server, an agent and its door.
type house struct {
	t      *testing.T
	server *l5test.Server
	socket string // of the agent
	web    string // on loopback
}

func build(t *testing.T, edit func(*json.Config)) *house {
	t.Helper()
	h := &house{t: t, server: l5test.NewServer(t, func(c *server.Config) { c.Grants = only("shop.secret") })}
	h.register("shop.cart", "10.0.0.7:80")
	h.register("shop.secret", "10.0.0.8:80")
	h.socket = h.server.Dir() + "/agent.sock"
	a, err := agent.New(agent.Config{Upstream: h.server.Target(), Device: "device-1", Socket: h.socket, ReportEvery: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	client, err := l5.New(l5.Config{Target: "unix://" + h.socket, Caller: "test", ReportEvery: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	_, protocol := a.Handler()
	config := json.Config{Names: a, Caller: "test", Router: client, Listen: "127.0.0.1:0", Token: token, Protocol: protocol}
	if edit != nil {
		edit(&config)
	}
	d, err := json.New(config)
	if err != nil {
		t.Fatal(err)
	}
	a.Handle("/v1/", d.Handler())
	for _, run := range []func(context.Context) error{a.Run, client.Run, d.Run} {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	if err := a.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	addr, err := d.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.web = "http://" + addr.String()
	return h
}

func (h *house) register(service string, addrs ...string) {
	h.t.Helper()
	var all []l5.Instance
	for _, addr := range addrs {
		all = append(all, l5.Instance{Service: service, Addr: addr, Share: 100, Site: "sz", City: "shenzhen"})
	}
	if err := h.server.Name().Register(h.t.Context(), all); err != nil {
		h.t.Fatal(err)
	}
}

// curl returns the body and, in its last line, the status.
func curl(t *testing.T, args ...string) (body, status string) {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		if os.Getenv("ZHIYUN_REQUIRE") == "1" {
			t.Fatal("curl is required and not installed")
		}
		t.Skip("curl is not installed")
	}
	out, err := exec.CommandContext(t.Context(), path, append([]string{"-sS", "--max-time", "60", "-w", "\n%{http_code}"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("curl %v: %v: %s", args, err, out)
	}
	cut := strings.LastIndexByte(string(out), '\n')
	return string(out[:cut]), string(out[cut+1:])
}

// The same answers come from the agent's socket and from loopback with the token.
func TestCurl(t *testing.T) {
	t.Parallel()
	h := build(t, nil)
	for name, way := range map[string][]string{
		"socket":   {"--unix-socket", h.socket, "http://l5"},
		"loopback": {"-H", "Authorization: Bearer " + token, h.web},
	} {
		do := func(path string, more ...string) (string, string) {
			args := slices.Clone(way)
			args[len(args)-1] += path
			return curl(t, append(args, more...)...)
		}
		for _, c := range []struct{ path, status, want string }{
			{"/v1/services/shop.cart", "200", `"addr":"10.0.0.7:80","weight":100,"health":"up"`},
			{"/v1/services/shop.cart", "200", `"site":"sz","city":"shenzhen"`},
			{"/v1/services/nobody", "200", `"instances":[]`},
			{"/v1/services/shop.secret", "403", `grant`},
			{"/v1/services/no%20such", "400", `service id`},
			{"/v1/services/shop.cart?wait=forever", "400", `wait`},
			{"/v1/nothing", "404", ``},
		} {
			if body, status := do(c.path); status != c.status || !strings.Contains(body, c.want) {
				t.Errorf("%s %s: %s %s; want %s with %q", name, c.path, status, body, c.status, c.want)
			}
		}
		for _, c := range []struct{ path, status string }{
			{"/v1/services/nobody/route", "404"}, {"/v1/services/shop.secret/route", "403"}, {"/v1/services/a%20b/route", "400"},
		} {
			if body, status := do(c.path, "-X", "POST"); status != c.status {
				t.Errorf("%s %s: %s %s", name, c.path, status, body)
			}
		}
		body, status := do("/v1/services/shop.cart/route", "-X", "POST")
		var pick struct{ ID, Addr string }
		if err := stdjson.Unmarshal([]byte(body), &pick); err != nil || status != "200" || pick.Addr != "10.0.0.7:80" {
			t.Fatalf("%s: route: %s %s", name, status, body)
		}
		told := `{"id":"` + pick.ID + `","error":"status 503","latency_ms":2.5}`
		if body, status := do("/v1/outcomes", "-d", told); status != "204" {
			t.Errorf("%s: outcome: %s %s", name, status, body)
		}
		for _, bad := range []string{told, `[{"id":"x"}]`, "rubbish", `{"idd":1}`, "[]x"} {
			if body, status := do("/v1/outcomes", "-d", bad); status != "404" && status != "400" {
				t.Errorf("%s: outcome %s: %s %s", name, bad, status, body)
			}
		}
		if body, status := do("/zhiyun.l5.v1.NameService/Explain", "-H", "Content-Type: application/json", "-d", `{"service":"shop.cart"}`); status != "200" || !strings.Contains(body, "10.0.0.7:80") {
			t.Errorf("%s: Connect: %s %s", name, status, body)
		}
	}
	l5test.Await(t, "both failures are told", func() bool { return h.server.Sink.Sum("shop.cart", "10.0.0.7:80").Failures == 2 })
}

// Loopback is not trust.
func TestStrangers(t *testing.T) {
	t.Parallel()
	h := build(t, nil)
	bear := "Authorization: Bearer " + token
	for name, c := range map[string]struct {
		args   []string
		status string
	}{
		"no token":       {nil, "401"},
		"a wrong token":  {[]string{"-H", "Authorization: Bearer fedcba9876543210"}, "401"},
		"a rebound name": {[]string{"-H", bear, "-H", "Host: evil.example"}, "403"},
		"another site":   {[]string{"-H", bear, "-H", "Origin: http://evil.example"}, "403"},
		"no site at all": {[]string{"-H", bear, "-H", "Origin: null"}, "403"},
		"its own page":   {[]string{"-H", bear, "-H", "Origin: " + h.web}, "200"},
	} {
		if body, status := curl(t, append(c.args, h.web+"/v1/services/shop.cart")...); status != c.status {
			t.Errorf("%s: %s, want %s: %s", name, status, c.status, body)
		}
	}
	if body, status := curl(t, "-H", "Content-Type: application/json", "-d", `{"service":"shop.cart"}`, h.web+"/zhiyun.l5.v1.NameService/Explain"); status != "401" {
		t.Errorf("Connect without a token: %s %s", status, body)
	}
}

// A long poll returns with the next state, or after its time with nothing new.
func TestLongPoll(t *testing.T) {
	t.Parallel()
	h := build(t, nil)
	get := func(tag, wait string) *http.Response {
		request, err := http.NewRequestWithContext(t.Context(), "GET", h.web+"/v1/services/shop.cart?wait="+wait, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		request.Header.Set("If-None-Match", tag)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Error(err)
			return &http.Response{Header: http.Header{}}
		}
		response.Body.Close()
		return response
	}
	first := get("", "20s")
	tag := first.Header.Get("ETag")
	if first.StatusCode != 200 || tag == "" {
		t.Fatalf("the first state: %v", first)
	}
	if again := get(tag, "10ms"); again.StatusCode != 304 || again.Header.Get("ETag") != tag {
		t.Errorf("nothing new: %v", again)
	}
	next := make(chan *http.Response, 1)
	go func() { next <- get(tag, "20s") }()
	h.register("shop.cart", "10.0.0.9:80")
	if got := <-next; got.StatusCode != 200 || got.Header.Get("ETag") == tag {
		t.Errorf("after a change: %v", got)
	}
}

// An event stream has each state, and ends with the door.
func TestEvents(t *testing.T) {
	t.Parallel()
	h := build(t, nil)
	request, err := http.NewRequestWithContext(t.Context(), "GET", h.web+"/v1/services/shop.cart", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	lines := bufio.NewScanner(response.Body)
	await := func(part string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), part) {
				return
			}
		}
		t.Fatalf("the stream ended without %q: %v", part, lines.Err())
	}
	await("10.0.0.7:80")
	h.register("shop.cart", "10.0.0.9:80")
	await("10.0.0.9:80")
}

// Picks without an outcome are bounded, and forgotten in time; both leave nothing in flight.
func TestOpenPicks(t *testing.T) {
	t.Parallel()
	h := build(t, func(c *json.Config) { c.MaxOpen, c.OpenFor = 2, 50*time.Millisecond })
	route := func() string {
		_, status := curl(t, "--unix-socket", h.socket, "-X", "POST", "http://l5/v1/services/shop.cart/route")
		return status
	}
	for range 5 {
		if status := route(); status != "200" && status != "503" {
			t.Errorf("a pick: %s", status)
		}
	}
	l5test.Await(t, "old picks make room", func() bool { return route() == "200" })
	if h.server.Sink.Sum("shop.cart", "").Requests != 0 {
		t.Error("picks whose outcome nobody told were reported")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := json.New(json.Config{Listen: "0.0.0.0:80", Token: "short", MaxOpen: -1, OpenFor: -1})
	for _, want := range []string{"Names", "Caller", "Listen", "Token", "MaxOpen", "OpenFor"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}

// Whatever is told as outcomes, the answer is one of three.
func FuzzOutcomes(f *testing.F) {
	d, err := json.New(json.Config{Names: (*agent.Agent)(nil), Caller: "test"})
	if err != nil {
		f.Fatal(err)
	}
	handler := d.Handler()
	f.Add(`{"id":"a","error":"b","latency_ms":1e300}`)
	f.Add(`[{"id":"a"},{"overloaded":true}]`)
	f.Fuzz(func(t *testing.T, body string) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("POST", "/v1/outcomes", strings.NewReader(body)))
		if w.Code != 204 && w.Code != 400 && w.Code != 404 {
			t.Errorf("%d: %s", w.Code, w.Body)
		}
	})
}
