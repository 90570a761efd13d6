package etcdstore_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

// authority makes certificates for one test.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir(), pool: x509.NewCertPool()}
	a.cert, a.key = a.issue(t, "ca", nil)
	a.pool.AddCert(a.cert)
	return a
}

// issue writes NAME.pem and NAME-key.pem; signed by the authority, or by itself for the authority's own.
func (a *authority) issue(t testing.TB, name string, parent *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	signer := a.key
	if parent == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".pem":     {Type: "CERTIFICATE", Bytes: der},
		name + "-key.pem": {Type: "EC PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// client returns the TLS side of a client with a certificate of its own.
func (a *authority) client(t testing.TB) *tls.Config {
	t.Helper()
	a.issue(t, "client", a.cert)
	cert, err := tls.LoadX509KeyPair(filepath.Join(a.dir, "client.pem"), filepath.Join(a.dir, "client-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{RootCAs: a.pool, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
}

func parse(t testing.TB, raw string) []url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return []url.URL{*u}
}

// external runs a cluster of one as a stranger would have set it up: with etcd's own limits, TLS, and client
// certificates required. It returns a client of it.
func external(t testing.TB) *clientv3.Client {
	t.Helper()
	ca := newAuthority(t)
	ca.issue(t, "server", ca.cert)
	c := embed.NewConfig()
	c.Dir, c.Name = t.TempDir(), "stranger"
	c.ListenPeerUrls, c.AdvertisePeerUrls = nil, parse(t, "http://127.0.0.1:1")
	c.InitialCluster = "stranger=http://127.0.0.1:1"
	c.ListenClientUrls = parse(t, "https://127.0.0.1:0")
	c.AdvertiseClientUrls = c.ListenClientUrls
	c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = filepath.Join(ca.dir, "server.pem"), filepath.Join(ca.dir, "server-key.pem")
	c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = filepath.Join(ca.dir, "ca.pem"), true
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	server, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	<-server.Server.ReadyNotify()
	endpoint := "https://" + server.Clients[0].Addr().String()

	stranger, err := etcdstore.Dial(etcdstore.DialConfig{
		Endpoints: []string{endpoint}, TLS: &tls.Config{RootCAs: ca.pool, MinVersion: tls.VersionTLS12}, Timeout: time.Second,
	})
	if err == nil {
		if _, _, err = etcdstore.New(stranger, "/").List(within(t, 3*time.Second), ""); err == nil {
			t.Error("the cluster takes a client without a certificate, so that TLS is not tested")
		}
		_ = stranger.Close()
	}
	client, err := etcdstore.Dial(etcdstore.DialConfig{
		Endpoints: []string{endpoint}, TLS: ca.client(t), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}
