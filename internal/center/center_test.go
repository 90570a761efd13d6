package center_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

func newCenters(t *testing.T, change ...func(*center.Config)) *center.Centers {
	t.Helper()
	config := center.Config{Store: store.Prefixed(store.NewMemory(), "/zhiyun/center/"), Dir: t.TempDir()}
	for _, f := range change {
		f(&config)
	}
	centers, err := center.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return centers
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantErr(t *testing.T, err, want error, words ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not say %q", err, word)
		}
	}
}

func TestNewNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := center.New(center.Config{Dir: "relative", MaxBlob: -1, Approve: "maybe", Sinks: []center.Sink{nil}})
	for _, field := range []string{"Config.Store", "Config.Dir", "Config.MaxBlob", "approval", "Config.Sinks"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("error %v does not name %s", err, field)
		}
	}
}

func archive(t *testing.T, zip bool, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.Writer = &out
	if zip {
		z := gzip.NewWriter(&out)
		w = z
	}
	tw := tar.NewWriter(w)
	for _, h := range headers {
		body := "content of " + h.Name
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(body))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(tw, body); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if z, ok := w.(*gzip.Writer); ok {
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func TestPackagePush(t *testing.T) {
	t.Parallel()
	for _, zip := range []bool{false, true} {
		ctx := t.Context()
		centers := newCenters(t)
		content := archive(t, zip, tar.Header{Name: "./bin/", Typeflag: tar.TypeDir}, tar.Header{Name: "./bin/cart"},
			tar.Header{Name: "run", Typeflag: tar.TypeSymlink, Linkname: "bin/cart"})
		first := must[center.Package](t)(centers.Packages.Push(ctx, "cart", "1.0", bytes.NewReader(content), "alice"))
		again := must[center.Package](t)(centers.Packages.Push(ctx, "cart", "1.0", bytes.NewReader(content), "bob"))
		got := must[center.Package](t)(centers.Packages.Get(ctx, "cart", "1.0"))
		for _, other := range []center.Package{again, got} {
			if diff := cmp.Diff(first, other); diff != "" {
				t.Errorf("package differs: %s", diff)
			}
		}
		want := []center.PackageFile{
			{Path: "bin", Kind: center.EntryDir, Mode: 0o755},
			{Path: "bin/cart", Kind: center.EntryFile, Mode: 0o755, Size: 21, Digest: first.Files[1].Digest},
			{Path: "run", Kind: center.EntryLink, Mode: 0o777, Target: "bin/cart"},
		}
		if diff := cmp.Diff(want, got.Files); diff != "" {
			t.Error(diff)
		}
		blob, size, err := centers.Blobs.Open(ctx, first.Digest)
		if err != nil {
			t.Fatal(err)
		}
		kept, err := io.ReadAll(blob)
		if err := errors.Join(err, blob.Close()); err != nil || !bytes.Equal(kept, content) || size != int64(len(content)) {
			t.Errorf("blob holds %d bytes (%v), want the archive of %d", len(kept), err, len(content))
		}
		_, err = centers.Packages.Push(ctx, "cart", "1.0", bytes.NewReader(archive(t, zip, tar.Header{Name: "other"})), "bob")
		wantErr(t, err, center.ErrTaken, "another version")
	}
}

func TestPackageRefused(t *testing.T) {
	t.Parallel()
	whole := archive(t, true, tar.Header{Name: "a"})
	for name, content := range map[string][]byte{
		"escape":    archive(t, false, tar.Header{Name: "../a"}),
		"absolute":  archive(t, false, tar.Header{Name: "/etc/passwd"}),
		"link out":  archive(t, false, tar.Header{Name: "a"}, tar.Header{Name: "b", Typeflag: tar.TypeSymlink, Linkname: "../../etc"}),
		"via link":  archive(t, false, tar.Header{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "e"}, tar.Header{Name: "d/a"}),
		"long name": archive(t, false, tar.Header{Name: "d/" + strings.Repeat("n", 256)}),
		"setuid":    archive(t, false, tar.Header{Name: "a", Mode: 0o4755}),
		"device":    archive(t, false, tar.Header{Name: "a", Typeflag: tar.TypeChar}),
		"twice":     archive(t, false, tar.Header{Name: "a"}, tar.Header{Name: "./a"}),
		"empty":     archive(t, false),
		"nothing":   nil,
		"truncated": whole[:len(whole)-6],
		"no tar":    []byte(strings.Repeat("no tar at all ", 100)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			centers := newCenters(t)
			_, err := centers.Packages.Push(t.Context(), "cart", "1.0", bytes.NewReader(content), "alice")
			wantErr(t, err, center.ErrInvalid)
			if list := must2(t)(centers.Packages.List(t.Context(), "", center.Page{})); len(list) != 0 {
				t.Errorf("kept %v", list)
			}
		})
	}
}

func must2(t *testing.T) func([]center.Package, string, error) []center.Package {
	return func(v []center.Package, _ string, err error) []center.Package {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestBlobsOverHTTP(t *testing.T) {
	t.Parallel()
	centers := newCenters(t, func(c *center.Config) { c.MaxBlob = 100 })
	mux := http.NewServeMux()
	mux.Handle(centers.Blobs.Handler())
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	digest, _, err := centers.Blobs.Put(t.Context(), strings.NewReader("hello"), "")
	if err != nil {
		t.Fatal(err)
	}
	hex := strings.TrimPrefix(digest, "sha256:")
	for _, c := range []struct {
		method, digest, body string
		status               int
		answer               string
	}{
		{"GET", hex, "", 200, "hello"},
		{"PUT", hex, "hello", 201, digest},
		{"PUT", hex, "other", 400, "the content that arrived has"},
		{"PUT", hex, strings.Repeat("x", 101), 400, "raise the limit"},
		{"GET", strings.Repeat("0", 64), "", 404, "push it again"},
		{"GET", "..%2fetc", "", 400, "hex digits"},
		{"DELETE", hex, "", 405, "use GET"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, server.URL, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		request.URL.Path = center.BlobPath + c.digest
		answer, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		if err := errors.Join(err, answer.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != c.status || !strings.Contains(string(body), c.answer) {
			t.Errorf("%s %s: %d %q, want %d %q", c.method, c.digest, answer.StatusCode, body, c.status, c.answer)
		}
	}
}

func TestFilesMirror(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	centers := newCenters(t)
	for _, path := range []string{"etc/a", "etc/b/c", "etcetera"} {
		must[center.File](t)(centers.Files.Push(ctx, "shop", path, 0o600, strings.NewReader(path), "alice"))
	}
	must[center.File](t)(centers.Files.Push(ctx, "shop2", "x", 0, strings.NewReader("x"), "alice"))
	for source, want := range map[string][]string{
		"shop/etc": {"a", "b/c"}, "shop/etc/a": {"."}, "shop": {"etc/a", "etc/b/c", "etcetera"}, "shop2/": {"x"},
	} {
		var got []string
		for _, m := range must[[]center.Mirrored](t)(centers.Files.Resolve(ctx, source)) {
			got = append(got, m.Relative)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", source, diff)
		}
	}
	_, err := centers.Files.Resolve(ctx, "shop/none")
	wantErr(t, err, center.ErrNotFound, "zhiyun file push")
	before := must[center.File](t)(centers.Files.Get(ctx, "shop", "etc/a"))
	after := must[center.File](t)(centers.Files.Push(ctx, "shop", "etc/a", 0o600, strings.NewReader("etc/a"), "bob"))
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the same push changed: %s", diff)
	}
}

func set(t *testing.T, centers *center.Centers, level center.Level, owner, key, value string, secret bool) {
	t.Helper()
	param := center.Param{Level: level, Owner: owner, Key: key, Value: json.RawMessage(value), Secret: secret}
	must[center.Param](t)(centers.Configs.Set(t.Context(), param, "alice"))
}

func TestConfigLevelsAndSecrets(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	centers := newCenters(t)
	set(t, centers, center.LevelGlobal, "all", "log.level", `"info"`, false)
	set(t, centers, center.LevelModule, "shop.cart", "log.level", `"debug"`, false)
	set(t, centers, center.LevelModule, "shop.cart", "workers", `10000000`, false)
	set(t, centers, center.LevelModule, "shop.cart", "db.password", `"hunter2"`, true)
	set(t, centers, center.LevelDevice, "d1", "db.password", `"hunter3"`, false) // stays a secret
	set(t, centers, center.LevelDevice, "d2", "log.level", `"warn"`, false)
	must[center.Template](t)(centers.Configs.SetTemplate(ctx, "cart.conf",
		"listen {{.device.addr}}\nlevel {{.param.log.level}}\nworkers {{.param.workers}}\npass {{.param.db.password}}\n", "alice"))
	scope := center.Scope{Business: "shop", Module: "shop.cart", Site: "s1", Device: "d1",
		Facts: map[string]any{"device": map[string]any{"addr": "127.0.1.1"}}}
	shown := must[center.Rendered](t)(centers.Configs.Render(ctx, "cart.conf", scope, false))
	real := must[center.Rendered](t)(centers.Configs.Render(ctx, "cart.conf", scope, true))
	want := "listen 127.0.1.1\nlevel debug\nworkers 10000000\npass hunter3\n"
	if diff := cmp.Diff(want, string(real.Body)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(strings.Replace(want, "hunter3", center.Masked, 1), string(shown.Body)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(center.Provenance{Key: "log.level", Value: json.RawMessage(`"debug"`), Level: center.LevelModule, Owner: "shop.cart",
		Overrides: []string{"global/all"}}, shown.Params[1]); diff != "" {
		t.Error(diff)
	}
	list, _, err := centers.Configs.Params(ctx, "", "", center.Page{})
	if err != nil {
		t.Fatal(err)
	}
	force := must[[]center.Provenance](t)(centers.Configs.Resolve(ctx, scope))
	one := must[center.Param](t)(centers.Configs.Get(ctx, center.LevelModule, "shop.cart", "db.password"))
	for _, shown := range []any{list[3:], force, one, real.Params, shown} {
		encoded, err := json.Marshal(shown)
		if err != nil || strings.Contains(string(encoded), "hunter2") {
			t.Errorf("a listing shows a secret: %s %v", encoded, err)
		}
	}
	// A device without the address the template reads.
	_, err = centers.Configs.Render(ctx, "cart.conf", center.Scope{Module: "shop.cart"}, false)
	wantErr(t, err, center.ErrInvalid, "cart.conf", "shop.cart")
}

func TestConfigFaults(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	centers := newCenters(t)
	set(t, centers, center.LevelModule, "m", "db.host", `"h"`, false)
	for name, param := range map[string]center.Param{
		"level":  {Level: "city", Owner: "x", Key: "a", Value: json.RawMessage(`1`)},
		"owner":  {Level: center.LevelGlobal, Owner: "x", Key: "a", Value: json.RawMessage(`1`)},
		"key":    {Level: center.LevelModule, Owner: "m", Key: "a-b", Value: json.RawMessage(`1`)},
		"value":  {Level: center.LevelModule, Owner: "m", Key: "token", Value: json.RawMessage(`s3cret`)},
		"parent": {Level: center.LevelModule, Owner: "m", Key: "db", Value: json.RawMessage(`1`)},
		"child":  {Level: center.LevelModule, Owner: "m", Key: "db.host.port", Value: json.RawMessage(`1`)},
	} {
		_, err := centers.Configs.Set(ctx, param, "alice")
		wantErr(t, err, center.ErrInvalid)
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the fault shows the value: %v", name, err)
		}
	}
	_, err := centers.Configs.SetTemplate(ctx, "bad", "{{.a", "alice")
	wantErr(t, err, center.ErrInvalid, "does not parse")
	must[center.Template](t)(centers.Configs.SetTemplate(ctx, "endless", `{{define "x"}}xxxxxxxxxxxxxxxx{{template "x" .}}{{end}}{{template "x" .}}`, "alice"))
	_, err = centers.Configs.Render(ctx, "endless", center.Scope{}, false)
	wantErr(t, err, center.ErrInvalid, "does not render")
}

func TestGrantHolders(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	centers := newCenters(t)
	p := centers.Permissions
	request := func(key string) center.Grant {
		return must[center.Grant](t)(p.Request(ctx, "shop.web", "shop.cart", key, "flow", "expansion"))
	}
	wantState := func(g center.Grant, state center.GrantState, may bool) {
		t.Helper()
		if g.State != state || p.MayCall("shop.web", "shop.cart") != may {
			t.Fatalf("grant %+v, may call %v; want %s, %v", g, p.MayCall("shop.web", "shop.cart"), state, may)
		}
	}
	wantState(request("e1"), center.GrantPending, false)
	changed := p.Changed()
	wantState(must[center.Grant](t)(p.Approve(ctx, "shop.web", "shop.cart", "owner", "fine")), center.GrantActive, true)
	<-changed
	first := request("e1")
	if diff := cmp.Diff(first, request("e1")); diff != "" {
		t.Errorf("the same key changed: %s", diff)
	}
	wantState(request("e2"), center.GrantActive, true)
	release := func(key string) center.Grant {
		return must[center.Grant](t)(p.Release(ctx, "shop.web", "shop.cart", key, "flow", "undo"))
	}
	wantState(release("e1"), center.GrantActive, true)
	wantState(release("never"), center.GrantActive, true)
	wantState(release("e2"), center.GrantRevoked, false)
	wantState(release("e2"), center.GrantRevoked, false)
	must[center.Policy](t)(p.SetApproval(ctx, "shop.cart", center.ApproveAtOnce, "owner"))
	wantState(request("e3"), center.GrantActive, true)
	wantState(must[center.Grant](t)(p.Deny(ctx, "shop.web", "shop.cart", "owner", "abuse")), center.GrantDenied, false)
	wantState(request("e4"), center.GrantDenied, false)
	_, err := p.Approve(ctx, "shop.web", "shop.none", "owner", "")
	wantErr(t, err, center.ErrNotFound, "request it first")
}

func TestGrantsFollowOtherWriters(t *testing.T) {
	t.Parallel()
	shared := store.NewMemory()
	a := newCenters(t, func(c *center.Config) { c.Store = shared; c.Approve = center.ApproveAtOnce })
	b := newCenters(t, func(c *center.Config) { c.Store = shared })
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := b.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer wait.Wait()
	defer cancel()
	if err := b.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		service := fmt.Sprintf("s%d", i%7)
		changed := b.Permissions.Changed()
		if i%2 == 0 {
			must[center.Grant](t)(a.Permissions.Request(ctx, "m", service, "k", "flow", ""))
		} else {
			must[center.Grant](t)(a.Permissions.Revoke(ctx, "m", service, "flow", ""))
		}
		grant := must[center.Grant](t)(a.Permissions.Check(ctx, "m", service))
		for b.Permissions.MayCall("m", service) != (grant.State == center.GrantActive) {
			<-changed
			changed = b.Permissions.Changed()
		}
	}
}

func TestChangesNewestFirst(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := newCenters(t).Changes
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 5 {
		change := center.Change{Key: fmt.Sprintf("k%d", 9-i), At: start.Add(time.Duration(i) * time.Hour), Module: "m", Kind: "expand", Actor: "flow"}
		first := must[center.Change](t)(c.Record(ctx, change))
		change.At, change.Reason = start, "again"
		if diff := cmp.Diff(first, must[center.Change](t)(c.Record(ctx, change))); diff != "" {
			t.Error(diff)
		}
	}
	var got []string
	for after := ""; ; {
		page, next, err := c.List(ctx, center.ChangeFilter{Since: start.Add(time.Hour)}, center.Page{Limit: 3, After: after})
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range page {
			got = append(got, one.Key)
		}
		if after = next; next == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"k5", "k6", "k7", "k8"}, got); diff != "" {
		t.Error(diff)
	}
	if err := errors.Join(c.Undo(ctx, "k5", "flow", "failed"), c.Undo(ctx, "k5", "flow", "twice"), c.Undo(ctx, "none", "flow", "")); err != nil {
		t.Fatal(err)
	}
	if one := must[center.Change](t)(c.Get(ctx, "k5")); one.Undone == nil || one.UndoneReason != "failed" {
		t.Errorf("undone record is %+v", one)
	}
}

// balancer is a balancer that can lose what it knows.
type balancer struct {
	mu      sync.Mutex
	servers map[string]bool // guarded by mu; virtual/addr
}

func (b *balancer) Add(_ context.Context, virtual, addr string, _ int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.servers[virtual+"/"+addr] = true
	return nil
}

func (b *balancer) Remove(_ context.Context, virtual, addr string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.servers, virtual+"/"+addr)
	return nil
}

func (b *balancer) Servers(_ context.Context, virtual string) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for key := range b.servers {
		if v, addr, _ := strings.Cut(key, "/"); v == virtual {
			out = append(out, addr)
		}
	}
	return out, nil
}

func TestVirtualAddrsFollowRecords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b := &balancer{servers: map[string]bool{}}
		centers := newCenters(t, func(c *center.Config) { c.Balancer = b })
		v := centers.VirtualAddrs
		server := center.RealServer{Virtual: "web", Addr: "127.0.1.1:80", Key: "e1", Actor: "flow"}
		first := must[center.RealServer](t)(v.Add(ctx, server))
		server.Key = "e2"
		if diff := cmp.Diff(first, must[center.RealServer](t)(v.Add(ctx, server))); diff != "" {
			t.Error(diff)
		}
		var wait sync.WaitGroup
		wait.Go(func() {
			if err := centers.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		b.mu.Lock()
		b.servers = map[string]bool{"web/127.0.9.9:80": true} // it restarted with another's server
		b.mu.Unlock()
		time.Sleep(6 * time.Second)
		if got := must[[]string](t)(b.Servers(ctx, "web")); !cmp.Equal(got, []string{"127.0.1.1:80"}) {
			t.Errorf("balancer holds %v", got)
		}
		// The act that did not add it does not take it away.
		if err := v.Remove(ctx, "web", "127.0.1.1:80", "e2", "flow"); err != nil || len(b.servers) != 1 {
			t.Errorf("removed by another: %v %v", b.servers, err)
		}
		if err := errors.Join(v.Remove(ctx, "web", "127.0.1.1:80", "e1", "flow"), v.Remove(ctx, "web", "127.0.1.1:80", "e1", "flow")); err != nil || len(b.servers) != 0 {
			t.Errorf("not removed: %v %v", b.servers, err)
		}
		cancel()
		wait.Wait()
		_, err := newCenters(t).VirtualAddrs.Add(t.Context(), server)
		wantErr(t, err, center.ErrNoBalancer)
	})
}

func TestPause(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := newCenters(t).Pause
	must[center.Paused](t)(p.Press(ctx, "m", "alice", "looking"))
	if _, is, err := p.Of(ctx, "other"); is || err != nil {
		t.Errorf("other is paused: %v", err)
	}
	must[center.Paused](t)(p.Press(ctx, "", "bob", "incident"))
	must[center.Paused](t)(p.Press(ctx, "", "carol", "me too"))
	if got, is, err := p.Of(ctx, "m"); !is || got.Actor != "bob" || err != nil {
		t.Errorf("paused by %+v %v %v, want bob's global button", got, is, err)
	}
	if was, err := p.Release(ctx, "", "bob"); !was || err != nil {
		t.Errorf("release: %v %v", was, err)
	}
	if got, is, _ := p.Of(ctx, "m"); !is || got.Reason != "looking" {
		t.Errorf("module's button: %+v", got)
	}
	_, err := p.Press(ctx, "m", "alice", "")
	wantErr(t, err, center.ErrInvalid, "reason")
}
