package center_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/center"
)

// Where clouds hand out credentials no sink is called, whatever writes its address: the mends of the refusal say how to allow it.
func TestSinksAreNotCalledWhereCredentialsAre(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusTemporaryRedirect)
			return
		}
		calls.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	t.Cleanup(server.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	wildcard := "http://0.0.0.0:" + port // is this machine, and an address that is barred
	for name, test := range map[string]struct {
		spec    center.SinkSpec
		allowed []netip.Prefix
		taken   bool
	}{
		"loopback":            {spec: center.SinkSpec{Kind: center.KindWebhook, URL: server.URL}, taken: true},
		"metadata":            {spec: center.SinkSpec{Kind: center.KindWebhook, URL: "http://169.254.169.254/latest"}},
		"link-local":          {spec: center.SinkSpec{Kind: center.KindWebhook, URL: "http://[fe80::1%25lo]:80/"}},
		"mapped":              {spec: center.SinkSpec{Kind: center.KindWebhook, URL: "http://[::ffff:169.254.169.254]/"}},
		"by NAT64":            {spec: center.SinkSpec{Kind: center.KindWebhook, URL: "http://[64:ff9b::a9fe:a9fe]/"}},
		"by NAT64 of a site":  {spec: center.SinkSpec{Kind: center.KindWebhook, URL: "http://[64:ff9b:1::a9fe:a9fe]/"}},
		"by 6to4":             {spec: center.SinkSpec{Kind: center.KindWebhook, URL: "http://[2002:a9fe:a9fe::1]/"}},
		"AWS":                 {spec: center.SinkSpec{Kind: center.KindWebhook, URL: "http://[fd00:ec2::23]/"}},
		"Google":              {spec: center.SinkSpec{Kind: center.KindWebhook, URL: "http://[fd20:ce::254]/"}},
		"Oracle":              {spec: center.SinkSpec{Kind: center.KindWebhook, URL: "http://[fd00:c1::a9fe:a9fe]/"}},
		"Azure":               {spec: center.SinkSpec{Kind: center.KindWebhook, URL: "http://168.63.129.16/"}},
		"redirected":          {spec: center.SinkSpec{Kind: center.KindWebhook, URL: server.URL + "/elsewhere"}},
		"alertmanager":        {spec: center.SinkSpec{Kind: center.KindAlertmanager, URL: "http://169.254.169.254"}},
		"mail":                {spec: center.SinkSpec{Kind: center.KindSMTP, Addr: "169.254.169.254:25", From: "a@example.org", To: []string{"b@example.org"}}},
		"barred":              {spec: center.SinkSpec{Kind: center.KindWebhook, URL: wildcard}},
		"allowed":             {spec: center.SinkSpec{Kind: center.KindWebhook, URL: wildcard}, allowed: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/32")}, taken: true},
		"another was allowed": {spec: center.SinkSpec{Kind: center.KindWebhook, URL: "http://169.254.169.254/"}, allowed: []netip.Prefix{netip.MustParsePrefix("169.254.10.0/24")}},
	} {
		t.Run(name, func(t *testing.T) {
			before := calls.Load()
			n := newCenters(t, func(c *center.Config) { c.SinkNetworks = test.allowed }).Notify
			test.spec.Name, test.spec.Actor = "hook", "ann"
			if _, err := n.SetSink(t.Context(), test.spec); err != nil {
				t.Fatal(err)
			}
			got, err := n.Deliver(t.Context(), center.Notice{ID: "n-1", Kind: "alert", Text: "hello"})
			if err != nil {
				t.Fatal(err)
			}
			if test.taken {
				if got.Outcome != center.Delivered || calls.Load() != before+1 {
					t.Errorf("it is %s: %v", got.Outcome, got.Faults)
				}
				return
			}
			if got.Outcome != center.Dead || !strings.Contains(got.Faults["hook"], "--sink-network") || calls.Load() != before {
				t.Errorf("it is %s after %d calls: %v", got.Outcome, calls.Load()-before, got.Faults)
			}
		})
	}
}
