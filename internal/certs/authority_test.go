package certs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/certs"
)

// folder makes a CA with the certificate of a server at 127.0.0.1.
func folder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tls")
	if _, err := certs.Make(dir, []string{"127.0.0.1"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, dir string) *certs.Authority {
	t.Helper()
	a, err := certs.OpenAuthority(filepath.Join(dir, certs.CAFile), filepath.Join(dir, certs.CAKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func request(t *testing.T) *x509.CertificateRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"evil.example"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := certs.ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestADeviceGetsAClientsCertificateAndNoServers(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	a := open(t, dir)
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	pem, err := a.Sign(request(t), "agent:d1", until)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := certs.ParseBundle(pem)
	if err != nil {
		t.Fatal(err)
	}
	leaf, roots := signed[0], x509.NewCertPool()
	roots.AppendCertsFromPEM(a.Bundle())
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Errorf("as a client's: %v", err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("it is good as a server's")
	}
	if leaf.Subject.CommonName != "agent:d1" || len(leaf.DNSNames) != 0 || !leaf.NotAfter.Equal(until) || leaf.IsCA {
		t.Errorf("signed was %s for %v until %v", leaf.Subject, leaf.DNSNames, leaf.NotAfter)
	}
	if _, err := a.Sign(request(t), "agent:d1", time.Now().AddDate(20, 0, 0)); err == nil || !strings.Contains(err.Error(), "rotate") {
		t.Errorf("beyond the CA's own end: %v", err)
	}
	if _, err := certs.ParseRequest([]byte("x")); err == nil {
		t.Error("nonsense is a request")
	}
	if err := os.Chmod(filepath.Join(dir, certs.CAKeyFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := certs.OpenAuthority(filepath.Join(dir, certs.CAFile), filepath.Join(dir, certs.CAKeyFile)); err == nil {
		t.Error("a CA's key that others can read was accepted")
	}
}

// handshake connects a client to a server that sends a folder's certificate, along with its CA.
func handshake(t *testing.T, dir string, client *tls.Config, name string) error {
	t.Helper()
	own, err := tls.LoadX509KeyPair(filepath.Join(dir, "127.0.0.1.pem"), filepath.Join(dir, "127.0.0.1-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := certs.ReadBundle(filepath.Join(dir, certs.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	own.Certificate = append(own.Certificate, bundle[len(bundle)-1].Raw)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		tls.Server(b, &tls.Config{Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS13}).Handshake() // the client's side tells
		b.Close()
	}()
	client = certs.ForHost(client, name)
	client.ServerName = name
	err = tls.Client(a, client).Handshake()
	a.Close()
	<-served
	return err
}

func TestAPinIsOneServersCA(t *testing.T) {
	t.Parallel()
	dir, other := folder(t), folder(t)
	pin := open(t, dir).Pin()
	if err := handshake(t, dir, certs.Pinned(pin), "127.0.0.1"); err != nil {
		t.Errorf("the pinned server: %v", err)
	}
	if err := handshake(t, other, certs.Pinned(pin), "127.0.0.1"); !errors.Is(err, certs.ErrPin) {
		t.Errorf("another server: %v", err)
	}
	for _, name := range []string{"10.0.0.1", "other.example", ""} {
		if err := handshake(t, dir, certs.Pinned(pin), name); err == nil {
			t.Errorf("the pinned CA's certificate of another host was accepted for %q", name)
		}
	}
}

// While a CA is rotated, what the old one has signed is good for whoever trusts both, and so is what the new one signs; what
// trusts the old one alone loses the server only with the server's new certificate.
func TestTheOldAndTheNewCAOverlap(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	old := open(t, dir)
	reader := func(pem []byte) *tls.Config {
		return certs.Trusting(func() ([]*x509.Certificate, error) { return certs.ParseBundle(pem) })
	}
	behind := reader(old.Bundle())
	if err := certs.Rotate(dir); err != nil {
		t.Fatal(err)
	}
	fresh := open(t, dir)
	if fresh.Pin() == old.Pin() || strings.Count(string(fresh.Bundle()), "BEGIN") != 2 {
		t.Fatal("there is no new CA beside the old one")
	}
	for who, client := range map[string]*tls.Config{"who has read both": reader(fresh.Bundle()), "who has the old one": behind} {
		if err := handshake(t, dir, client, "127.0.0.1"); err != nil {
			t.Errorf("the server under the old CA, for %s: %v", who, err)
		}
	}
	if err := certs.Retire(dir); err == nil || !strings.Contains(err.Error(), "still signed by an old CA") {
		t.Errorf("the old CA is retired under its server: %v", err)
	}
	if _, err := certs.Make(dir, []string{"127.0.0.1"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := handshake(t, dir, reader(fresh.Bundle()), "127.0.0.1"); err != nil {
		t.Errorf("the server under the new CA, for who has read both: %v", err)
	}
	if err := handshake(t, dir, behind, "127.0.0.1"); err == nil {
		t.Error("the server under the new CA is trusted by who has the old one alone")
	}
	if err := certs.Retire(dir); err != nil {
		t.Fatal(err)
	}
	if got := open(t, dir); got.Pin() != fresh.Pin() || strings.Count(string(got.Bundle()), "BEGIN") != 1 {
		t.Error("another CA than the new one is left")
	}
}

// A rotation that is cut off between its two files is finished by the next.
func TestARotationIsCutOff(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	spare := folder(t)
	if err := certs.Rotate(spare); err != nil {
		t.Fatal(err)
	}
	// The drafts are there, and the first has moved.
	for from, to := range map[string]string{certs.CAKeyFile: certs.CAKeyFile, certs.CAFile: certs.CAFile + ".next"} {
		content, err := os.ReadFile(filepath.Join(spare, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := certs.OpenAuthority(filepath.Join(dir, certs.CAFile), filepath.Join(dir, certs.CAKeyFile))
	if err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("half a rotation: %v", err)
	}
	if err := certs.Rotate(dir); err != nil {
		t.Fatal(err)
	}
	if open(t, dir).Pin() != open(t, spare).Pin() {
		t.Error("the rotation that was begun is not the one that was finished")
	}
}
