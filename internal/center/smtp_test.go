package center_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/center"
)

// mailServer speaks as much SMTP as a mail takes: EHLO, STARTTLS, AUTH PLAIN, MAIL, RCPT, DATA, QUIT.
type mailServer struct {
	addr   string
	secure *tls.Config // offered, if set
	user   string      // "user\x00password", required if set
	refuse string      // what MAIL is answered with, if set

	mu    sync.Mutex // guards what follows
	mails []string
	said  []string
}

// taken are the mails that it has accepted.
func (m *mailServer) taken() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mails)
}

func serveMail(t *testing.T, m *mailServer) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.addr = listener.Addr().String()
	var wait sync.WaitGroup
	t.Cleanup(func() { listener.Close(); wait.Wait() })
	wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wait.Go(func() { m.serve(conn) })
		}
	})
}

func (m *mailServer) serve(conn net.Conn) {
	defer func() { conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	lines := bufio.NewReader(conn)
	say := func(text string) { fmt.Fprint(conn, text+"\r\n") }
	say("220 test")
	encrypted, known := false, m.user == ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		m.mu.Lock()
		m.said = append(m.said, line)
		m.mu.Unlock()
		switch verb, rest, _ := strings.Cut(line, " "); strings.ToUpper(verb) {
		case "EHLO":
			if m.secure != nil && !encrypted {
				say("250-STARTTLS")
			}
			say("250 AUTH PLAIN")
		case "STARTTLS":
			say("220 go on")
			secured := tls.Server(conn, m.secure)
			conn, lines, encrypted = secured, bufio.NewReader(secured), true
		case "AUTH":
			given, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(rest, "PLAIN "))
			if known = string(given) == "\x00"+m.user; known {
				say("235 welcome")
			} else {
				say("535 " + strings.TrimPrefix(rest, "PLAIN ") + " " + string(given[max(0, len(given)-6):]) + " is wrong")
			}
		case "MAIL":
			switch {
			case !known:
				say("530 log in first")
			case m.refuse != "":
				say(m.refuse)
			default:
				say("250 ok")
			}
		case "RCPT", "RSET", "NOOP":
			say("250 ok")
		case "DATA":
			say("354 go on")
			var body strings.Builder
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				body.WriteString(strings.TrimPrefix(line, "."))
			}
			m.mu.Lock()
			m.mails = append(m.mails, body.String())
			m.mu.Unlock()
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("500 what?")
		}
	}
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	shape := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, shape, shape, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, pool
}

func TestMailGoesOutOverTLSWithALogin(t *testing.T) {
	t.Parallel()
	own, roots := certificate(t)
	server := &mailServer{secure: &tls.Config{Certificates: []tls.Certificate{own}}, user: "zhiyun\x00hunter2-secret"}
	serveMail(t, server)
	sink, err := center.NewSMTP(center.SMTPConfig{
		Name: "mail", Addr: server.addr, From: "zhiyun@example.org", To: []string{"ann@example.org", "bob@example.org"},
		Username: "zhiyun", Password: func() (string, error) { return "hunter2-secret", nil }, TLS: &tls.Config{RootCAs: roots},
	})
	if err != nil {
		t.Fatal(err)
	}
	notice := center.Notice{
		ID: "n-1", Kind: "flow.stuck", Severity: center.Critical, At: time.Now(),
		Title: "扩容 stuck\r\nBcc: eve@example.org", Text: "first line\n.second begins with a dot\n织云",
	}
	if err := sink.Deliver(t.Context(), notice); err != nil {
		t.Fatal(err)
	}
	mails := server.taken()
	if len(mails) != 1 {
		t.Fatalf("%d mails", len(mails))
	}
	got, err := mail.ReadMessage(strings.NewReader(mails[0]))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(got.Header.Get("Subject"))
	if err != nil || subject != "扩容 stuck Bcc: eve@example.org" || got.Header.Get("Bcc") != "" {
		t.Errorf("subject %q, %v, headers %v", subject, err, got.Header)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(got.Body))
	if err != nil || strings.ReplaceAll(string(body), "\r", "") != notice.Text+"\n" {
		t.Errorf("body %q, %v", body, err)
	}
	if to := got.Header.Get("To"); to != "ann@example.org, bob@example.org" {
		t.Errorf("to %q", to)
	}
}

// Neither a wrong password nor a right one is in an error, whatever the server answers.
func TestMailErrorsHoldNoCredentials(t *testing.T) {
	t.Parallel()
	own, roots := certificate(t)
	secure := &tls.Config{Certificates: []tls.Certificate{own}}
	for name, tc := range map[string]struct {
		server *mailServer
		says   string
	}{
		"wrong password": {&mailServer{secure: secure, user: "zhiyun\x00other"}, "535"},
		"without TLS":    {&mailServer{user: "zhiyun\x00secret"}, ""},
		"refused":        {&mailServer{secure: secure, user: "zhiyun\x00secret", refuse: "550 no such sender"}, "550"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			serveMail(t, tc.server)
			sink, err := center.NewSMTP(center.SMTPConfig{
				Name: "mail", Addr: tc.server.addr, From: "zhiyun@example.org", To: []string{"ann@example.org"},
				Username: "zhiyun", Password: func() (string, error) { return "secret", nil }, TLS: &tls.Config{RootCAs: roots},
			})
			if err != nil {
				t.Fatal(err)
			}
			err = sink.Deliver(t.Context(), center.Notice{ID: "1", Kind: "load", Severity: center.Info, Text: "x", At: time.Now()})
			if name == "without TLS" { // to this machine a login in the clear is allowed
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestMailServerThatHangsIsLeft(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	sink, err := center.NewSMTP(center.SMTPConfig{Name: "mail", Addr: listener.Addr().String(), From: "a@example.org", To: []string{"b@example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := sink.Deliver(ctx, center.Notice{ID: "1", Text: "x", At: time.Now()}); err == nil {
		t.Error("a mail was taken by nobody")
	}
}
