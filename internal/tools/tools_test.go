package tools_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/control/controltest"
	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/tools"
	"github.com/zhiyun-ops/zhiyun/l5"
)

const site = `
{kind: site, name: s1, city: sz}
---
{kind: device_type, name: small, cores: 2}
---
{kind: device_type, name: big, cores: 4}
---
{kind: device, name: d1, addr: 127.0.1.1, site: s1, type: small}
---
{kind: device, name: d2, addr: 127.0.1.2, site: s1, type: big}
---
{kind: device, name: d3, addr: 127.0.1.3, site: s1, type: small}
---
{kind: device, name: old, addr: 127.0.1.9, site: s1, type: small}
---
kind: init_profile
name: plain
dirs: [{path: /data/spool}]
---
kind: module
name: shop.pay
services: [{id: shop.pay, port: 8000}]
---
kind: module
name: shop.cart
init_profile: plain
packages: [{name: cart, version: "1.0"}]
files: [{source: shop/etc, path: etc/shop}]
configs: [{template: cart.conf, path: etc/cart.conf}]
scripts: [{name: init, path: bin/init, undo: bin/undo}]
processes: [{name: cart, command: [bin/cart]}]
ports: [{port: 7000}]
services: [{id: shop.cart, port: 7000}]
virtual_addrs: [{name: web, addr: "127.0.0.1:80", port: 7000}]
permissions: [shop.pay]
scale: {max: 4, capacity: {small: 100, big: 200}}
`

// world is a server with a module of one device in service, and three idle devices.
func world(t *testing.T) *controltest.World {
	t.Helper()
	ctx := t.Context()
	w := controltest.New(t)
	w.Apply(t, site)
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	for _, name := range []string{"bin/cart", "bin/init"} {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	controltest.Must(w.Centers.Packages.Push(ctx, "cart", "1.0", &archive, "alice"))(t)
	controltest.Must(w.Centers.Files.Push(ctx, "shop", "etc/map", 0, strings.NewReader("map"), "alice"))(t)
	controltest.Must(w.Centers.Configs.SetTemplate(ctx, "cart.conf", "listen {{.device.addr}}\n", "alice"))(t)
	controltest.Must(w.Centers.Permissions.SetApproval(ctx, "shop.pay", center.ApproveAtOnce, "alice"))(t)
	controltest.Must(w.CMDB.Acquire(ctx, cmdb.AcquireRequest{Owner: "e0", Key: "k", Names: []string{"old"}, Module: "shop.cart"}))(t)
	if err := w.CMDB.Serve(ctx, "e0", "old", "shop.cart"); err != nil {
		t.Fatal(err)
	}
	if err := w.Names.Register(ctx, []l5.Instance{{Service: "shop.cart", Addr: "127.0.1.9:7000", Device: "old", Module: "shop.cart", Share: 100, State: l5.StateUp}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Names.SetShare(ctx, "shop.cart", map[string]int{"127.0.1.9:7000": 100}); err != nil {
		t.Fatal(err)
	}
	controltest.Must(w.Centers.VirtualAddrs.Add(ctx, center.RealServer{Virtual: "web", Addr: "127.0.1.9:7000", Key: "e0", Actor: "alice"}))(t)
	return w
}

// run is a tool as a process: what it printed, and the code of its failure.
func run(ctx context.Context, t *testing.T, w *controltest.World, name, key, input string) (output map[string]any, code string) {
	t.Helper()
	env := map[string]string{"ZHIYUN_SERVER": w.Target, "ZHIYUN_KEY": key, "ZHIYUN_EXECUTION": "e1", "ZHIYUN_STEP": "test"}
	var stdout, stderr bytes.Buffer
	exit := tools.Run(ctx, name, strings.NewReader(input), &stdout, &stderr, func(name string) string { return env[name] })
	if err := json.Unmarshal(stdout.Bytes(), &output); err != nil {
		t.Fatalf("%s printed %q: %v", name, stdout.String(), err)
	}
	failure, failed := output["error"].(map[string]any)
	if failed != (exit == 1) || exit > 1 {
		t.Fatalf("%s: exit %d with %v", name, exit, output)
	}
	if failed {
		t.Logf("%s: %v", name, failure["message"])
		code, _ = failure["code"].(string)
	}
	return output, code
}

func ok(t *testing.T, w *controltest.World, name, key, input string) map[string]any {
	t.Helper()
	output, code := run(t.Context(), t, w, name, key, input)
	if code != "" {
		t.Fatalf("%s %s failed: %v", name, input, output)
	}
	return output
}

// with adds what the step did to its input, as an undo gets it.
func with(t *testing.T, input string, done map[string]any) string {
	t.Helper()
	object := map[string]any{}
	if err := json.Unmarshal([]byte(input), &object); err != nil {
		t.Fatal(err)
	}
	object["done"] = done
	return string(controltest.Must(json.Marshal(object))(t))
}

const (
	cartService = `[{"id":"shop.cart","port":7000,"weight":100}]`
	webVirtual  = `[{"name":"web","addr":"127.0.0.1:80","port":7000}]`
	d1          = `{"name":"d1","addr":"127.0.1.1","site":"s1","type":"small","cores":2}`
	d2          = `{"name":"d2","addr":"127.0.1.2","site":"s1","type":"big","cores":4}`
	old         = `{"name":"old","addr":"127.0.1.9","site":"s1","type":"small","cores":2}`
	noManifest  = `{"module":"","packages":[],"files":[],"mirror":[],"configs":[],"scripts":[],"programs":[],"processes":[],"ports":[],"permissions":[]}`
)

// hold has the execution hold d1 and d2.
func hold(t *testing.T, w *controltest.World) {
	controltest.Must(w.CMDB.Acquire(t.Context(), cmdb.AcquireRequest{Owner: "e1", Key: "held", Names: []string{"d1", "d2"}, Module: "shop.cart"}))(t)
}

// changing are the tools that change something: what they take, and how they are taken back.
var changing = []struct {
	tool, undo, input string
	prepare           func(*testing.T, *controltest.World)
}{
	{tool: "notify.mute", undo: "notify.unmute", input: `{"module":"shop.cart"}`},
	{tool: "permission.request", undo: "permission.revoke", input: `{"caller":"shop.cart","services":["shop.pay"]}`},
	{tool: "device.acquire", undo: "device.release", input: `{"module":"shop.cart","count":2,"names":["d1","d2","d3"],"manifest":` + noManifest + `}`},
	{tool: "alert.silence", undo: "alert.unsilence", input: `{"devices":["d1","d2"]}`},
	{tool: "change.report", undo: "change.withdraw", input: `{"module":"shop.cart","kind":"expand","devices":["d1"]}`},
	{tool: "vip.add", undo: "vip.remove", input: `{"virtuals":` + webVirtual + `,"device":` + d1 + `}`},
	{tool: "l5.callee.join", undo: "l5.callee.leave", prepare: hold,
		input: `{"module":"shop.cart","services":` + cartService + `,"devices":[` + d1 + `,` + d2 + `]}`},
	{tool: "device.hold", undo: "device.serve", input: `{"module":"shop.cart","names":["old"]}`},
	{tool: "l5.drain", undo: "l5.undrain", input: `{"services":` + cartService + `,"devices":[` + old + `],"quiet":"50ms"}`},
	{tool: "l5.callee.leave", undo: "l5.callee.restore", input: `{"module":"shop.cart","services":` + cartService + `,"devices":[` + old + `],"quiet":"50ms","keep":true}`,
		prepare: func(t *testing.T, w *controltest.World) { // it leaves after it was drained
			if err := w.Names.SetShare(t.Context(), "shop.cart", map[string]int{"127.0.1.9:7000": 0}); err != nil {
				t.Fatal(err)
			}
		}},
	{tool: "vip.remove", undo: "vip.restore", input: `{"virtuals":` + webVirtual + `,"device":` + old + `,"force":true}`},
	{tool: "permission.revoke", undo: "permission.restore", input: `{"caller":"shop.web","services":["shop.pay"],"unused":true}`,
		prepare: func(t *testing.T, w *controltest.World) {
			controltest.Must(w.Centers.Permissions.Request(t.Context(), "shop.web", "shop.pay", "expansion", "flow", ""))(t)
			controltest.Must(w.Centers.Permissions.Request(t.Context(), "shop.web", "shop.pay", "by-hand/alice", "alice", ""))(t)
		}},
}

// The same key twice changes nothing; undo restores what was, whether or not it is known what was done, also when nothing
// was, and also twice. I3: a step in doubt is run again under its key alone.
func TestKeyedAndUndone(t *testing.T) {
	t.Parallel()
	for _, c := range changing {
		t.Run(c.tool, func(t *testing.T) {
			t.Parallel()
			w := world(t)
			if c.prepare != nil {
				c.prepare(t, w)
			}
			before := w.InForce(t)
			same := func(when string) {
				t.Helper()
				if diff := cmp.Diff(before, w.InForce(t)); diff != "" {
					t.Errorf("%s: %s", when, diff)
				}
			}
			if c.tool != "permission.revoke" && c.tool != "l5.callee.leave" { // their undo without a word of what was done gives
				ok(t, w, c.undo, "never", c.input)
				same("undo of what was never done")
			}
			done := ok(t, w, c.tool, "e1/1", c.input)
			if cmp.Equal(before, w.InForce(t)) {
				t.Fatal("it changed nothing")
			}
			raw := kept(w.Raw(t))
			again := ok(t, w, c.tool, "e1/1", c.input)
			if diff := cmp.Diff(raw, kept(w.Raw(t))); diff != "" {
				t.Errorf("the same key changed: %s", diff)
			}
			if removal := strings.HasSuffix(c.undo, "restore") || c.tool == "l5.drain"; !removal {
				if diff := cmp.Diff(done, again); diff != "" {
					t.Errorf("the same key told something else: %s", diff)
				}
			}
			for range 2 {
				ok(t, w, c.undo, "e1/1", with(t, c.input, done))
				same("undo of what is known")
			}
		})
	}
}

// kept is what is stored, without the leases that name servers write by themselves.
func kept[V any](raw map[string]V) map[string]V {
	maps.DeleteFunc(raw, func(key string, _ V) bool { return strings.HasPrefix(key, "/l5/lease/") })
	return raw
}

// A step that died after its effect is undone without its output.
func TestUndoInDoubt(t *testing.T) {
	t.Parallel()
	for _, c := range changing {
		if c.tool == "permission.revoke" || c.tool == "l5.callee.leave" || c.tool == "l5.callee.join" {
			continue // the first two cannot know whose grants, and which shares, there were; the third is below
		}
		t.Run(c.tool, func(t *testing.T) {
			t.Parallel()
			w := world(t)
			before := w.InForce(t)
			ok(t, w, c.tool, "e1/1", c.input)
			ok(t, w, c.undo, "e1/1", c.input)
			if diff := cmp.Diff(before, w.InForce(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Where the world is wrong, each tool fails by name.
func TestFailsByName(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tool, input, code, says string
		prepare                 func(*testing.T, *controltest.World)
	}{
		"params module":    {tool: "flow.params", input: `{"module":"none"}`, code: "module.unknown"},
		"params full":      {tool: "flow.params", input: `{"module":"shop.cart","count":4}`, code: "module.full"},
		"params count":     {tool: "flow.params", input: `{"module":"shop.cart","count":2,"devices":["d1"]}`, code: "count.invalid"},
		"mute module":      {tool: "notify.mute", input: `{"module":"none"}`, code: "module.unknown"},
		"mute expiry":      {tool: "notify.mute", input: `{"module":"shop.cart","expiry":"soon"}`, code: "input.invalid"},
		"query too many":   {tool: "device.query", input: `{"module":"shop.cart","count":9}`, code: "device.none"},
		"query busy":       {tool: "device.query", input: `{"module":"shop.cart","count":1,"devices":["old"]}`, code: "device.none"},
		"query unknown":    {tool: "device.query", input: `{"module":"shop.cart","count":1,"devices":["d9"]}`, code: "device.unknown"},
		"lookup module":    {tool: "name.lookup", input: `{"module":"none"}`, code: "module.unknown"},
		"manifest package": {tool: "resource.manifest", input: `{"module":"shop.cart"}`, code: "package.missing", prepare: again(`"1.0"`, `"2.0"`)},
		"manifest file":    {tool: "resource.manifest", input: `{"module":"shop.cart"}`, code: "file.missing", prepare: again("shop/etc", "shop/none")},
		"request pending": {tool: "permission.request", input: `{"caller":"shop.cart","services":["shop.pay"]}`, code: "grant.pending", prepare: func(t *testing.T, w *controltest.World) {
			controltest.Must(w.Centers.Permissions.SetApproval(t.Context(), "shop.pay", center.ApproveByHand, "alice"))(t)
		}},
		"request denied": {tool: "permission.request", input: `{"caller":"shop.cart","services":["shop.pay"]}`, code: "grant.denied", prepare: func(t *testing.T, w *controltest.World) {
			controltest.Must(w.Centers.Permissions.Request(t.Context(), "shop.cart", "shop.pay", "k", "alice", ""))(t)
			controltest.Must(w.Centers.Permissions.Deny(t.Context(), "shop.cart", "shop.pay", "alice", "no"))(t)
		}},
		"check missing":    {tool: "permission.check", input: `{"caller":"shop.cart","services":["shop.pay"]}`, code: "grant.missing"},
		"acquire none":     {tool: "device.acquire", input: `{"module":"shop.cart","count":2,"names":["d1","old"],"manifest":` + noManifest + `}`, code: "device.none"},
		"silence unknown":  {tool: "alert.silence", input: `{"devices":["d9"]}`, code: "device.unknown"},
		"silence nothing":  {tool: "alert.silence", input: `{"devices":[]}`, code: "input.invalid"},
		"config template":  {tool: "config.params", input: `{"module":"shop.cart","device":"d1"}`, code: "config.missing", prepare: again("template: cart.conf", "template: none.conf")},
		"config parameter": {tool: "config.params", input: `{"module":"shop.cart","device":"d1"}`, code: "config.invalid", prepare: template("{{.param.absent}}")},
		"config device":    {tool: "config.params", input: `{"module":"shop.cart","device":"d9"}`, code: "device.unknown"},
		"report module":    {tool: "change.report", input: `{"module":"none","kind":"expand","devices":[]}`, code: "module.unknown"},
		"vip address":      {tool: "vip.add", input: `{"virtuals":` + webVirtual + `,"device":{"name":"d1","addr":"nowhere","site":"","type":"","cores":0}}`, code: "input.invalid"},
		"join idle":        {tool: "l5.callee.join", input: `{"module":"shop.cart","services":` + cartService + `,"devices":[` + d1 + `]}`, code: "device.state"},
		"hold idle":        {tool: "device.hold", input: `{"module":"shop.cart","names":["d1"]}`, code: "device.state"},
		"pick idle":        {tool: "device.pick", input: `{"module":"shop.cart","devices":["d1"]}`, code: "device.state"},
		"pick too many":    {tool: "device.pick", input: `{"module":"shop.cart","count":9}`, code: "module.minimum", says: "9 cannot leave: ask for fewer"},
		"pick minimum":     {tool: "device.pick", input: `{"module":"shop.cart","count":1}`, code: "module.minimum", prepare: again("scale: {", "scale: {min: 1, ")},
		"test tcp":         {tool: "test.run", input: `{"module":"shop.cart","device":` + d1 + `}`, code: "test.tcp", prepare: again("permissions:", "tests: [{kind: tcp, port: 1, timeout: 200ms}]\npermissions:")},
		"test http":        {tool: "test.run", input: `{"module":"shop.cart","device":` + d1 + `}`, code: "test.http", prepare: again("permissions:", "tests: [{kind: http, port: 1, timeout: 200ms}]\npermissions:")},
		"test callee":      {tool: "test.run", input: `{"module":"shop.cart","device":` + d1 + `}`, code: "test.connectivity"},
		"test device":      {tool: "test.run", input: `{"module":"shop.cart","device":{"name":"d9","addr":"127.0.1.1","site":"","type":"","cores":0}}`, code: "device.unknown"},
		"unknown tool":     {tool: "no.tool", input: `{}`, code: "tool.unknown"},
		"no object":        {tool: "flow.params", input: `[`, code: "input.invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world(t)
			if c.prepare != nil {
				c.prepare(t, w)
			}
			before := w.InForce(t)
			if output, code := run(t.Context(), t, w, c.tool, "e1/1", c.input); code != c.code || !strings.Contains(fmt.Sprint(output), c.says) {
				t.Errorf("failed with %q, %v; want %q, %s", code, output, c.code, c.says)
			}
			if diff := cmp.Diff(before, w.InForce(t)); diff != "" && !strings.HasPrefix(c.tool, "permission") {
				t.Errorf("a failure changed: %s", diff)
			}
		})
	}
}

// again declares the world with one text replaced.
func again(from, to string) func(*testing.T, *controltest.World) {
	return func(t *testing.T, w *controltest.World) { w.Apply(t, strings.Replace(site, from, to, 1)) }
}

func template(body string) func(*testing.T, *controltest.World) {
	return func(t *testing.T, w *controltest.World) {
		controltest.Must(w.Centers.Configs.SetTemplate(t.Context(), "cart.conf", body, "alice"))(t)
	}
}

// No tool takes a server that does not answer for a world in which there is nothing to do.
func TestServerThatIsAwayIsNamed(t *testing.T) {
	t.Parallel()
	gone := &controltest.World{Target: "unix://" + filepath.Join(t.TempDir(), "none.sock")}
	for _, m := range tools.Manifests("zhiyun") {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			output, code := run(t.Context(), t, gone, m.Name, "e1/1", wanted(m))
			failure, _ := output["error"].(map[string]any)
			if code != "unavailable" || failure["retry"] != true {
				t.Errorf("with %s it says %v", wanted(m), output)
			}
		})
	}
}

// wanted is an input for which the tool has something to do.
func wanted(m flow.Manifest) string {
	for _, c := range changing {
		if c.tool == m.Name || c.undo == m.Name {
			return c.input
		}
	}
	switch m.Name {
	case "device.query":
		return `{"module":"shop.cart","count":1}`
	case "device.repair":
		return `{"names":["d1"]}`
	case "permission.check":
		return `{"caller":"shop.cart","services":["shop.pay"]}`
	}
	return `{"module":"shop.cart"}`
}

func TestKeyIsRequired(t *testing.T) {
	t.Parallel()
	w := world(t)
	for _, c := range changing {
		if _, code := run(t.Context(), t, w, c.tool, "", c.input); code != "env.key" {
			t.Errorf("%s without a key: %q", c.tool, code)
		}
	}
	var stdout bytes.Buffer
	if exit := tools.Run(t.Context(), "flow.params", strings.NewReader("{}"), &stdout, &bytes.Buffer{}, func(string) string { return "" }); exit != 1 || !strings.Contains(stdout.String(), "env.server") {
		t.Errorf("without a server: %d %s", exit, stdout.String())
	}
}

func TestManifestHasWhatDeviceToolsTake(t *testing.T) {
	t.Parallel()
	w := world(t)
	m := ok(t, w, "resource.manifest", "", `{"module":"shop.cart"}`)
	digest := m["packages"].([]any)[0].(map[string]any)["digest"].(string)
	var paths []string
	for _, f := range m["files"].([]any) {
		file := f.(map[string]any)
		paths = append(paths, file["path"].(string))
		if _, _, err := w.Centers.Blobs.Open(t.Context(), file["digest"].(string)); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]string{"etc/shop/map", "etc/zhiyun/init.json", "data/spool/.keep"}, paths); diff != "" {
		t.Error(diff)
	}
	input := fmt.Sprintf(`{"module":"shop.cart","count":2,"names":["d2","d1"],"manifest":%s}`, controltest.Must(json.Marshal(m))(t))
	out := ok(t, w, "device.acquire", "e1/1", input)
	want := []any{
		map[string]any{"device": "d2", "package": map[string]any{"name": "cart", "version": "1.0", "digest": digest}},
		map[string]any{"device": "d1", "package": map[string]any{"name": "cart", "version": "1.0", "digest": digest}},
	}
	if diff := cmp.Diff(want, out["installs"]); diff != "" {
		t.Error(diff)
	}
	if len(out["init"].([]any)) != 2 || len(out["scripts"].([]any)) != 2 || len(out["starts"].([]any)) != 2 {
		t.Errorf("work: %v", out)
	}
	process := m["processes"].([]any)[0].(map[string]any)
	if got := process["env"].(map[string]any)[device.ListenVar]; got != "7000" {
		t.Errorf("the process is told to serve on %v", got)
	}
	config := ok(t, w, "config.params", "", `{"module":"shop.cart","device":"d1"}`)
	if got := config["configs"].([]any)[0].(map[string]any)["content"]; got != "listen 127.0.1.1\n" {
		t.Errorf("configuration %q", got)
	}
}

// Killed while it waits for gray, the join is run again under its key and finds its rollout.
func TestJoinSurvivesADeath(t *testing.T) {
	t.Parallel()
	w := world(t)
	hold(t, w)
	w.Outcomes.Hush(true)
	input := `{"module":"shop.cart","services":` + cartService + `,"devices":[` + d1 + `,` + d2 + `]}`
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() {
		if _, code := run(ctx, t, w, "l5.callee.join", "e1/21", input); code != "timeout" {
			t.Errorf("a killed join ended with %q", code)
		}
	})
	for _, err := range w.Store.Watch(t.Context(), "/gray/", 0) {
		if err != nil {
			t.Fatal(err)
		}
		if all := controltest.Must(w.Gray.List(t.Context()))(t); len(all) == 1 && all[0].Status.Percent == 10 {
			break
		}
	}
	cancel()
	wait.Wait()
	w.Outcomes.Hush(false)
	out := ok(t, w, "l5.callee.join", "e1/21", input)
	if all := controltest.Must(w.Gray.List(t.Context()))(t); len(all) != 1 || out["rollouts"].([]any)[0].(map[string]any)["id"] != all[0].ID || all[0].MinCores != 2 {
		t.Errorf("rollouts %+v, told %v", all, out)
	}
	for _, i := range w.Names.Instances("shop.cart") {
		if i.Share != 100 {
			t.Errorf("%s has share %d", i.Addr, i.Share)
		}
	}
}

// A rollout that gray aborts fails the step by name, and its undo leaves nothing.
func TestJoinFailsWhenGrayAborts(t *testing.T) {
	t.Parallel()
	w := world(t)
	hold(t, w)
	before := w.InForce(t)
	w.Outcomes.Spoil("127.0.1.1:7000")
	w.Outcomes.Spoil("127.0.1.2:7000")
	input := `{"module":"shop.cart","services":` + cartService + `,"devices":[` + d1 + `,` + d2 + `]}`
	if _, code := run(t.Context(), t, w, "l5.callee.join", "e1/21", input); code != "gray.aborted" {
		t.Fatalf("ended with %q", code)
	}
	for _, i := range w.Names.Instances("shop.cart") {
		if want := map[bool]int{true: 100, false: 0}[i.Device == "old"]; i.Share != want {
			t.Errorf("%s has share %d after the abort", i.Addr, i.Share)
		}
	}
	ok(t, w, "l5.callee.leave", "e1/21", input)
	if diff := cmp.Diff(before, w.InForce(t)); diff != "" {
		t.Error(diff)
	}
	ok(t, w, "device.release", "e1/7", `{}`)
	if n := w.CMDB.Counts()[cmdb.Idle]; n != 3 {
		t.Errorf("%d devices are idle, want 3", n)
	}
}

// report plays the agent of a device: it reports on whatever is declared, with the findings given.
func report(t *testing.T, w *controltest.World, device string, findings ...drift.Finding) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stream := controltest.Must(w.Client.Agents.Desired(ctx, connect.NewRequest(&pb.DesiredRequest{Device: device})))(t)
	var wait sync.WaitGroup
	wait.Go(func() {
		for stream.Receive() {
			out := drift.Report{Device: device, Generation: stream.Msg().Generation, At: time.Now()}
			var state drift.State
			if err := json.Unmarshal(stream.Msg().State, &state); err != nil {
				t.Error(err)
			}
			if len(state.Files) > 0 {
				out.Findings = findings
			}
			encoded, err := json.Marshal(out)
			if err == nil {
				_, err = w.Client.Agents.Report(ctx, connect.NewRequest(&pb.JSON{Json: encoded}))
			}
			if err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	return func() { cancel(); wait.Wait() }
}

func TestRunComparesWithADeviceInService(t *testing.T) {
	t.Parallel()
	w := world(t)
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		if _, err := rw.Write([]byte("all is well")); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(web.Close)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(web.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(site, "permissions:", `tests: [{kind: tcp, port: `+port+`}, {kind: http, port: `+port+`, body: well}]
permissions:`, 1)
	w.Apply(t, strings.Replace(text, "name: d1, addr: 127.0.1.1", "name: d1, addr: 127.0.0.1", 1))
	if err := w.Names.Register(t.Context(), []l5.Instance{{Service: "shop.pay", Addr: "127.0.0.1:" + port, State: l5.StateUp}}); err != nil {
		t.Fatal(err)
	}
	hold(t, w)
	input := `{"module":"shop.cart","device":` + strings.Replace(d1, "127.0.1.1", "127.0.0.1", 1) + `}`
	stop := report(t, w, "d1")
	out := ok(t, w, "test.run", "", input)
	stop()
	var passed []string
	for _, test := range out["tests"].([]any) {
		passed = append(passed, test.(map[string]any)["name"].(string))
	}
	if len(passed) != 4 || passed[2] != "connectivity:shop.pay" || passed[3] != "consistency" || !strings.Contains(fmt.Sprint(out), "as old") {
		t.Errorf("tests %v: %v", passed, out)
	}
	file := drift.File{Kind: drift.KindConfig, Digest: drift.Digest(nil)}
	stop = report(t, w, "d1", drift.Finding{Device: "d1", Kind: drift.KindConfig, Subject: "etc/cart.conf", Fields: []string{drift.FieldContent},
		Expected: "sha256:a", Actual: "sha256:b", Status: drift.StatusOpen, File: &file},
		drift.Finding{Device: "d1", Kind: drift.KindFile, Subject: "etc/shop/map", Fields: []string{drift.FieldMissing}, Expected: "file", Actual: "nothing", Status: drift.StatusOpen, File: &file})
	defer stop()
	// The same declaration again: only a parameter makes the agent report anew.
	controltest.Must(w.Centers.Configs.SetTemplate(t.Context(), "cart.conf", "listen on {{.device.addr}}\n", "alice"))(t)
	if _, code := run(t.Context(), t, w, "test.run", "", input); code != "test.consistency" {
		t.Errorf("a device that differs: %q", code)
	}
}

func TestContractionGivesADeviceBack(t *testing.T) {
	t.Parallel()
	w := world(t)
	picked := ok(t, w, "device.pick", "", `{"module":"shop.cart","count":1}`)
	if fmt.Sprint(picked["names"]) != "[old]" {
		t.Fatalf("picked %v", picked)
	}
	devices := `"devices":[` + old + `]`
	held := ok(t, w, "device.hold", "e1/6", `{"module":"shop.cart","names":["old"],"manifest":`+strings.Replace(noManifest, `"scripts":[]`,
		`"scripts":[{"package":"cart","path":"init","args":[],"timeout":"1m","undo":"undo"},{"package":"cart","path":"warm","args":[],"timeout":"1m","undo":""}]`, 1)+`}`)
	// What takes a script back is run when a device leaves; what takes that back is the script.
	script := map[string]any{"package": "cart", "path": "undo", "args": []any{}, "timeout": "1m", "undo": "init"}
	if diff := cmp.Diff([]any{map[string]any{"device": "old", "script": script}}, held["scripts"]); diff != "" {
		t.Error(diff)
	}
	ok(t, w, "l5.drain", "e1/7", `{"services":`+cartService+`,`+devices+`,"quiet":"50ms"}`)
	ok(t, w, "vip.remove", "e1/8", `{"virtuals":`+webVirtual+`,"device":`+old+`,"force":true}`)
	ok(t, w, "l5.callee.leave", "e1/9", `{"module":"shop.cart","services":`+cartService+`,`+devices+`,"keep":true,"quiet":"50ms"}`)
	ok(t, w, "device.release", "e1/10", `{"names":["old"]}`)
	if n := w.CMDB.Counts()[cmdb.Idle]; n != 4 || len(w.Names.Instances("shop.cart")) != 0 || len(w.Balancer.All()) != 0 {
		t.Errorf("%d idle, instances %v, real servers %v", n, w.Names.Instances("shop.cart"), w.Balancer.All())
	}
}
