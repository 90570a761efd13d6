package center_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/center"
)

// box is a sink that fails as long as it is told to.
type box struct {
	name string

	mu    sync.Mutex // guards what follows
	fails error
	took  []string
	tries int
}

func (b *box) Name() string { return b.name }

func (b *box) Deliver(_ context.Context, n center.Notice) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tries++
	if b.fails == nil {
		b.took = append(b.took, n.ID+" "+n.Title+"|"+n.Text)
	}
	return b.fails
}

func (b *box) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fails = err
}

func (b *box) state() ([]string, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.took...), b.tries
}

func TestRoutesBySeverityAndOwner(t *testing.T) {
	t.Parallel()
	pager, chat, archive := &box{name: "pager"}, &box{name: "chat"}, &box{name: "archive"}
	n := newCenters(t, func(c *center.Config) {
		c.Sinks = []center.Sink{pager, chat, archive}
		c.Owner = func(module string) string { return map[string]string{"shop.cart": "ann", "ad.web": "bob"}[module] }
	}).Notify
	ctx := t.Context()
	must[center.NoticeTemplate](t)(n.SetTemplate(ctx, center.NoticeTemplate{
		Name: "loud", Title: "{{upper .severity}} {{.module}}", Text: "{{or_else .owner \"nobody\"}}: {{cut 5 .text}}{{range $k, $v := .labels}} {{$k}}={{$v}}{{end}}", Actor: "test",
	}))
	must[center.Route](t)(n.SetRoute(ctx, center.Route{Name: "10-archive", Kinds: []string{"flow.*"}, Sinks: []string{"archive"}, Continue: true, Actor: "test"}))
	must[center.Route](t)(n.SetRoute(ctx, center.Route{Name: "20-pager", Severity: center.Critical, Owners: []string{"ann"}, Sinks: []string{"pager"}, Template: "loud", Actor: "test"}))
	must[center.Route](t)(n.SetRoute(ctx, center.Route{Name: "30-chat", Modules: []string{"shop.*"}, Sinks: []string{"chat"}, Actor: "test"}))
	for _, notice := range []center.Notice{
		{ID: "1", Kind: "flow.stuck", Module: "shop.cart", Severity: center.Critical, Text: "it waits", Labels: map[string]string{"site": "sz"}},
		{ID: "2", Kind: "load", Module: "shop.cart", Severity: center.Warning, Text: "high"},
		{ID: "3", Kind: "load", Module: "ad.web", Severity: center.Critical, Text: "high"},
		{ID: "4", Kind: "flow.done", Module: "shop.web", Text: "done"},
	} {
		if d := must[center.Delivery](t)(n.Deliver(ctx, notice)); d.Outcome != center.Delivered {
			t.Errorf("%s: %+v", notice.ID, d)
		}
	}
	for sink, want := range map[*box][]string{
		pager: {"1 CRITICAL shop.cart|ann: it wa... site=sz", "3 |high"}, chat: {"2 |high", "3 |high", "4 |done"}, archive: {"1 |it waits", "3 |high", "4 |done"},
	} {
		if took, _ := sink.state(); !cmp.Equal(took, want) {
			t.Errorf("%s: %s", sink.name, cmp.Diff(want, took))
		}
	}
	if err := n.RemoveTemplate(ctx, "loud"); !errors.Is(err, center.ErrTaken) {
		t.Errorf("a template that a route uses: %v", err)
	}
	if err := errors.Join(n.RemoveRoute(ctx, "20-pager"), n.RemoveTemplate(ctx, "loud")); err != nil {
		t.Error(err)
	}
	if err := n.RemoveRoute(ctx, "20-pager"); !errors.Is(err, center.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	for name, r := range map[string]center.Route{
		"unknown sink":     {Name: "a", Sinks: []string{"nowhere"}, Actor: "test"},
		"unknown template": {Name: "a", Template: "nothing", Actor: "test"},
		"bad pattern":      {Name: "a", Modules: []string{"["}, Actor: "test"},
		"bad severity":     {Name: "a", Severity: "loud", Actor: "test"},
		"nobody's":         {Name: "a"},
	} {
		if _, err := n.SetRoute(ctx, r); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// A sink that fails is tried again, further and further apart, until it takes the notice or is given up; then a person can have it tried again.
func TestDeliveryIsRetriedAndDies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		good, bad := &box{name: "good"}, &box{name: "bad", fails: errors.New("down")}
		centers := newCenters(t, func(c *center.Config) { c.Sinks = []center.Sink{good, bad} })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- centers.Run(ctx) }()
		defer func() { cancel(); <-done }()
		n := centers.Notify
		outcome := func(id string) center.Delivery {
			t.Helper()
			all, _, err := n.Deliveries(ctx, "", center.Page{})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range all {
				if d.Notice.ID == id {
					return d
				}
			}
			t.Fatalf("no notice %s", id)
			return center.Delivery{}
		}
		for _, id := range []string{"1", "2"} {
			if d := must[center.Delivery](t)(n.Deliver(ctx, center.Notice{ID: id, Kind: "load", Text: "x"})); d.Outcome != center.Failed || d.Faults["bad"] != "down" {
				t.Fatalf("%+v", d)
			}
		}
		time.Sleep(4 * time.Second) // after 1 s and 3 s
		if took, tries := bad.state(); len(took) != 0 || tries != 6 {
			t.Errorf("%d tries after 4 s, want 3 of each", tries)
		}
		bad.set(nil)
		time.Sleep(5 * time.Second)
		for _, id := range []string{"1", "2"} {
			if d := outcome(id); d.Outcome != center.Delivered || len(d.Faults) != 0 {
				t.Errorf("%+v", d)
			}
		}
		if took, _ := good.state(); len(took) != 2 {
			t.Errorf("the sink that worked got %d notices", len(took))
		}
		bad.set(errors.New("down"))
		must[center.Delivery](t)(n.Deliver(ctx, center.Notice{ID: "3", Kind: "load", Text: "x"}))
		time.Sleep(2 * time.Hour)
		if d := outcome("3"); d.Outcome != center.Dead || d.Targets[0].Attempts != 14 {
			t.Errorf("%+v", d)
		}
		bad.set(nil)
		if _, err := n.Redeliver(ctx, "3", "ann"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if d := outcome("3"); d.Outcome != center.Delivered {
			t.Errorf("after a person asked: %+v", d)
		}
		if _, err := n.Redeliver(ctx, "3", "ann"); !errors.Is(err, center.ErrInvalid) {
			t.Errorf("what is delivered was sent again: %v", err)
		}
		if took, _ := good.state(); len(took) != 3 {
			t.Errorf("the sink that worked got %d notices, want one each", len(took))
		}
	})
}

func TestHostileTemplatesAreRefused(t *testing.T) {
	t.Parallel()
	n := newCenters(t).Notify
	for name, text := range map[string]string{
		"empty":            "",
		"counts":           "{{range 1000000000}}{{end}}",
		"counts by a name": "{{$n := 1000000000}}{{range $n}}{{end}}",
		"counts a dot":     "{{with 1000000000}}{{range .}}{{end}}{{end}}",
		"nested":           "{{range .labels}}{{range .labels}}{{end}}{{end}}",
		"calls itself":     `{{define "a"}}{{template "a"}}{{end}}{{template "a"}}`,
		"wide":             `{{printf "%1000000000d" 1}}`,
		"misspelt":         "{{.modul}}",
		"unknown function": "{{env \"HOME\"}}",
		"calls":            "{{call .text}}",
		"does not parse":   "{{",
		"fails":            "{{index .text 99}}",
		"long":             strings.Repeat("x", 20<<10),
	} {
		if _, err := n.SetTemplate(t.Context(), center.NoticeTemplate{Name: "t", Text: text, Actor: "test"}); !errors.Is(err, center.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := `{{if eq .severity "critical"}}!! {{end}}{{.module}} {{local .at "Asia/Shanghai"}} {{json .labels}} {{.labels.site}}`
	if _, err := n.SetTemplate(t.Context(), center.NoticeTemplate{Name: "t", Text: good, Actor: "test"}); err != nil {
		t.Error(err)
	}
}

func FuzzNoticeTemplate(f *testing.F) {
	for _, seed := range []string{"{{.text}}", "{{range $k, $v := .labels}}{{$k}}{{end}}", "{{with .labels}}{{.site}}{{end}}", "{{range 9}}{{end}}", `{{cut 3 .text | json}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n := newCenters(t).Notify
		began := time.Now()
		_, err := n.SetTemplate(t.Context(), center.NoticeTemplate{Name: "t", Text: text, Actor: "test"})
		if took := time.Since(began); took > time.Minute {
			t.Errorf("%q took %s (%v)", text, took, err)
		}
	})
}

func TestSinksAreSetUp(t *testing.T) {
	t.Parallel()
	n := newCenters(t).Notify
	for name, s := range map[string]center.SinkSpec{
		"no kind":           {Name: "a", Actor: "test"},
		"no url":            {Name: "a", Kind: center.KindWebhook, Actor: "test"},
		"a file":            {Name: "a", Kind: center.KindWebhook, URL: "file:///etc/passwd", Actor: "test"},
		"no addresses":      {Name: "a", Kind: center.KindSMTP, Addr: "mail:25", From: "a@b.c", Actor: "test"},
		"a header":          {Name: "a", Kind: center.KindSMTP, Addr: "mail:25", From: "a@b.c", To: []string{"a@b.c\r\nBcc: d@e.f"}, Actor: "test"},
		"relative password": {Name: "a", Kind: center.KindSMTP, Addr: "mail:25", From: "a@b.c", To: []string{"a@b.c"}, Username: "u", PasswordFile: "pw", Actor: "test"},
	} {
		if _, err := n.SetSink(t.Context(), s); !errors.Is(err, center.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	server := &mailServer{}
	serveMail(t, server)
	must[center.SinkSpec](t)(n.SetSink(t.Context(), center.SinkSpec{Name: "mail", Kind: center.KindSMTP, Addr: server.addr, From: "a@b.c", To: []string{"d@e.f"}, Actor: "test"}))
	must[center.Route](t)(n.SetRoute(t.Context(), center.Route{Name: "all", Sinks: []string{"mail"}, Actor: "test"}))
	if err := n.RemoveSink(t.Context(), "mail"); !errors.Is(err, center.ErrTaken) {
		t.Errorf("a sink that a route uses: %v", err)
	}
	for i := range 2 {
		if d := must[center.Delivery](t)(n.Deliver(t.Context(), center.Notice{ID: fmt.Sprint(i), Kind: "load", Text: "x"})); d.Outcome != center.Delivered {
			t.Errorf("%+v", d)
		}
	}
	if mails := server.taken(); len(mails) != 2 {
		t.Errorf("%d mails", len(mails))
	}
	if err := errors.Join(n.RemoveRoute(t.Context(), "all"), n.RemoveSink(t.Context(), "mail")); err != nil {
		t.Error(err)
	}
}
