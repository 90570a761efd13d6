package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zhiyun-ops/zhiyun/internal/agent"
	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/certs"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/server"
)

// party is a server that enrols, over loopback without TLS or with it.
type party struct {
	*control.Client // of its operator
	target          string
	tls             string // the folder of the CA
}

func enrolling(t *testing.T, secure bool, life time.Duration) *party {
	t.Helper()
	dir := short(t)
	p := &party{tls: filepath.Join(dir, "tls")}
	config := server.Config{Dir: filepath.Join(dir, "s"), Listen: "127.0.0.1:0", DeviceLife: life, Exe: "/bin/false"}
	scheme := "http://"
	if secure {
		scheme = "https://"
		if _, err := certs.Make(p.tls, []string{"127.0.0.1"}, time.Hour); err != nil {
			t.Fatal(err)
		}
		file := func(name string) string { return filepath.Join(p.tls, name) }
		config.CertFile, config.KeyFile, config.CAFile, config.CAKeyFile = file("127.0.0.1.pem"), file("127.0.0.1-key.pem"), file("ca.pem"), file("ca-key.pem")
	}
	s, err := server.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-s.Ready():
	case <-time.After(time.Minute):
		t.Fatal("the server is not ready after a minute")
	}
	if p.Client, err = control.Dial("unix://"+filepath.Join(config.Dir, "control.sock"), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	p.target = scheme + s.Addr()
	return p
}

// short is a folder whose name leaves room for sockets below it.
func short(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "zn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// token makes an enrolment token for a device, and keeps it in a file.
func (p *party) token(t *testing.T, device string, ttl time.Duration) (made center.Credential, file string) {
	t.Helper()
	answer, err := p.Tokens.Issue(t.Context(), connect.NewRequest(&controlpb.IssueTokenRequest{Role: string(auth.Enrol), Name: device, Ttl: durationpb.New(ttl)}))
	if err == nil {
		err = json.Unmarshal(answer.Msg.Credential, &made)
	}
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "enrol")
	if err := auth.WriteSecret(file, []byte(answer.Msg.Token+"\n")); err != nil {
		t.Fatal(err)
	}
	return made, file
}

func (p *party) revoke(t *testing.T, q *controlpb.RevokeTokenRequest) {
	t.Helper()
	if _, err := p.Tokens.Revoke(t.Context(), connect.NewRequest(q)); err != nil {
		t.Fatal(err)
	}
}

func (p *party) config(root, file string) agent.Config {
	return agent.Config{Device: "d1", Root: root, Server: p.target, Enrol: "@" + file}
}

var errKilled = errors.New("killed")

var steps = []string{"draft", "ask", "answer", "ca.pem", "device.pem", "device.token", "device.json", "done"}

// Killed before any step of its enrolment, and of its renewal, an agent that starts again with the same token has a
// credential that the server takes; the token has made one credential.
func TestAnAgentIsKilledWhileItEnrols(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		p := enrolling(t, secure, time.Hour)
		for _, step := range steps {
			if skip := (step == "device.pem") != secure && strings.HasPrefix(step, "device.") && step != "device.json" || step == "ca.pem" && !secure; skip {
				continue
			}
			t.Run(fmt.Sprintf("TLS %t, before %s", secure, step), func(t *testing.T) {
				root := short(t)
				_, file := p.token(t, "d1", time.Hour)
				kill := func(at string) error {
					if at == step {
						return errKilled
					}
					return nil
				}
				if err := agent.Obtain(t.Context(), p.config(root, file), kill); !errors.Is(err, errKilled) {
					t.Fatalf("the agent was not killed: %v", err)
				}
				if err := agent.Obtain(t.Context(), p.config(root, file), nil); err != nil {
					t.Fatalf("the next agent: %v", err)
				}
				first := p.works(t, root, file)
				if err := agent.Renew(t.Context(), p.config(root, file), kill); !errors.Is(err, errKilled) {
					t.Fatalf("the agent was not killed while it renewed: %v", err)
				}
				p.works(t, root, file)
				if err := agent.Renew(t.Context(), p.config(root, file), nil); err != nil {
					t.Fatalf("the next agent renews: %v", err)
				}
				if second := p.works(t, root, file); second == first {
					t.Errorf("the credential %s was not renewed", first)
				}
				for _, name := range []string{"device.json", "device.pem", "device.token"} {
					info, err := os.Stat(filepath.Join(root, "var", "zhiyun", "credential", name))
					if err == nil && info.Mode().Perm() != 0o600 {
						t.Errorf("%s has mode %o", name, info.Mode().Perm())
					}
				}
			})
		}
	}
}

// works calls the server with the credential, and returns its id.
func (p *party) works(t *testing.T, root, file string) string {
	t.Helper()
	id, err := agent.Whoami(t.Context(), p.config(root, file))
	if err != nil {
		t.Fatalf("the server does not take the credential: %v", err)
	}
	return id
}

// An agent whose credential was changed, or revoked, ends and says what to do; one whose server is away does not.
func TestAnAgentWithoutACredentialThatCountsEnds(t *testing.T) {
	t.Parallel()
	p := enrolling(t, false, time.Hour)
	start := func(root string, server string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		config := p.config(root, "")
		config.Enrol, config.Addr, config.Server = "", "127.0.0.1", server
		return agent.Run(ctx, config)
	}
	root := short(t)
	_, file := p.token(t, "d1", time.Hour)
	if err := agent.Obtain(t.Context(), p.config(root, file), nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "var", "zhiyun", "credential", "device.token")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte{}, good...)
	if last := len(bad) - 2; bad[last] == 'A' {
		bad[last] = 'B'
	} else {
		bad[last] = 'A'
	}
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := start(root, p.target); !errors.Is(err, agent.ErrRefused) || !strings.Contains(err.Error(), "zhiyun token enrol d1") {
		t.Errorf("with another secret: %v", err)
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	p.revoke(t, &controlpb.RevokeTokenRequest{Id: p.works(t, root, file), Cause: &controlpb.Cause{Actor: "test", Reason: "stolen"}})
	if err := start(root, p.target); !errors.Is(err, agent.ErrRefused) || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("revoked: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	config := p.config(root, "")
	config.Enrol, config.Addr, config.Server = "", "127.0.0.1", "http://127.0.0.1:1"
	if err := agent.Run(ctx, config); err != nil {
		t.Errorf("with a server that is away: %v", err)
	}
}

// An agent may come before its device is declared: doctor says so, since nothing will be placed there.
func TestDoctorNamesAnAgentWithoutADevice(t *testing.T) {
	t.Parallel()
	p := enrolling(t, false, time.Hour)
	_, file := p.token(t, "d1", time.Hour)
	if err := agent.Obtain(t.Context(), p.config(short(t), file), nil); err != nil {
		t.Fatal(err)
	}
	said := func() string {
		answer, err := p.Ops.Doctor(t.Context(), connect.NewRequest(&controlpb.InfoRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s", answer.Msg.Items)
	}
	if out := said(); !strings.Contains(out, "that the CMDB does not have: d1") {
		t.Errorf("doctor says %s", out)
	}
	if _, err := p.Resources.Apply(t.Context(), connect.NewRequest(&controlpb.ApplyRequest{
		Documents: []*controlpb.SourceDocument{{Name: "x", Text: []byte("{kind: site, name: s, city: c}\n---\n{kind: device_type, name: t, cores: 1}\n---\n{kind: device, name: d1, addr: 10.0.0.1, site: s, type: t}\n")}},
		Cause:     &controlpb.Cause{Actor: "test", Reason: "its device"},
	})); err != nil {
		t.Fatal(err)
	}
	if out := said(); !strings.Contains(out, "all of declared devices") {
		t.Errorf("doctor says %s", out)
	}
}

func TestEnrolmentIsRefusedByName(t *testing.T) {
	t.Parallel()
	p := enrolling(t, true, time.Hour)
	other := enrolling(t, true, time.Hour)
	enrol := func(target, file string) error {
		return agent.Obtain(t.Context(), agent.Config{Device: "d1", Root: short(t), Server: target, Enrol: "@" + file}, nil)
	}
	_, used := p.token(t, "d1", time.Hour)
	if err := enrol(p.target, used); err != nil {
		t.Fatal(err)
	}
	_, wrong := p.token(t, "d2", time.Hour)
	late, expired := p.token(t, "d1", time.Second)
	lost, revoked := p.token(t, "d1", time.Hour)
	p.revoke(t, &controlpb.RevokeTokenRequest{Id: lost.ID})
	<-time.After(time.Until(late.Expires))
	_, theirs := other.token(t, "d1", time.Hour)
	open := filepath.Join(t.TempDir(), "open")
	if err := os.WriteFile(open, []byte("zy2.x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		target, file, want string
	}{
		"a used token":                       {p.target, used, "used up"},
		"a token of another device":          {p.target, wrong, "for another device"},
		"a token that has expired":           {p.target, expired, "has expired"},
		"a token that was revoked":           {p.target, revoked, "is revoked"},
		"another server, by its certificate": {p.target, theirs, "do not hold the pinned CA"},
		"a file that others can read":        {p.target, open, "others can read it"},
	} {
		if err := enrol(c.target, c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	if err := agent.Obtain(t.Context(), agent.Config{Device: "d1", Root: short(t), Server: p.target}, nil); !errors.Is(err, agent.ErrNoCredential) {
		t.Errorf("no token: %v", err)
	}
	root := short(t)
	_, mine := p.token(t, "d1", time.Hour)
	if err := agent.Obtain(t.Context(), p.config(root, mine), nil); err != nil {
		t.Fatal(err)
	}
	err := agent.Obtain(t.Context(), agent.Config{Device: "d2", Root: root, Server: p.target, Enrol: "@" + wrong}, nil)
	if err == nil || !strings.Contains(err.Error(), "that of device d1") {
		t.Errorf("another device's folder: %v", err)
	}
}

// An agent renews by itself, before the end of what it holds, and follows the CA when it is rotated: the new one is trusted
// before the server's certificate is signed by it, and the old one goes when nothing needs it any more.
func TestAnAgentRenewsAndFollowsTheCA(t *testing.T) {
	t.Parallel()
	p := enrolling(t, true, 15*time.Second)
	root := short(t)
	_, file := p.token(t, "d1", time.Hour)
	if err := agent.Obtain(t.Context(), p.config(root, file), nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	done := make(chan error, 1)
	go func() { done <- agent.Keep(ctx, p.config(root, file)) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	bundle := func() int {
		content, err := os.ReadFile(filepath.Join(root, "var", "zhiyun", "credential", "ca.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(content), "BEGIN")
	}
	await := func(what string, is func() bool) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for !is() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("%s: not within five minutes", what)
			}
		}
	}
	first := p.works(t, root, file)
	await("renewal", func() bool { return p.works(t, root, file) != first })
	if err := certs.Rotate(p.tls); err != nil {
		t.Fatal(err)
	}
	await("both CAs are trusted", func() bool { return bundle() == 2 })
	if err := certs.Retire(p.tls); err == nil {
		t.Error("the old CA was retired under the server's certificate")
	}
	if _, err := certs.Make(p.tls, []string{"127.0.0.1"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	before := p.works(t, root, file)
	await("renewal under the new CA", func() bool { return p.works(t, root, file) != before })
	if err := certs.Retire(p.tls); err != nil {
		t.Fatal(err)
	}
	await("the old CA is forgotten", func() bool { return bundle() == 1 })
	p.works(t, root, file)
	p.revoke(t, &controlpb.RevokeTokenRequest{Role: string(auth.Agent), Name: "d1"})
	if _, err := agent.Whoami(t.Context(), p.config(root, file)); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("after it was revoked: %v", err)
	}
}
