package daemon_test

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/memstore"
	"github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/l5/server/daemon"
)

func TestServes(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "l5")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	d, err := daemon.New(daemon.Config{Listen: "unix://" + filepath.Join(dir, "s"), Server: server.Config{Store: memstore.New()}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	target, err := d.Addr(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "s")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	client := l5test.Client(t, target, nil)
	if _, err := client.Register(ctx, "a", "127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	if r, err := client.Route(ctx, "a"); err != nil || r.Addr() != "127.0.0.1:1" {
		t.Errorf("route to %q, %v", r.Addr(), err)
	}
	if got := d.Server().Instances("a"); len(got) != 1 || got[0].Share != 100 || got[0].EffectiveWeight != l5.DefaultWeight {
		t.Errorf("registered %+v", got)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestOffTheMachineOnlyWithCertificates(t *testing.T) {
	t.Parallel()
	for _, c := range []*tls.Config{nil, {}, {ClientAuth: tls.RequestClientCert}} {
		_, err := daemon.New(daemon.Config{Listen: ":0", TLS: c, Server: server.Config{Store: memstore.New()}})
		if err == nil || !strings.Contains(err.Error(), "client certificates") {
			t.Errorf("TLS %+v: %v", c, err)
		}
	}
	_, err := daemon.New(daemon.Config{Listen: "nowhere"})
	for _, want := range []string{"Listen", "Store"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}
