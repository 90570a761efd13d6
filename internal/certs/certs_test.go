package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/certs"
)

func TestCertificatesChainToTheFoldersCA(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tls")
	first, err := certs.Make(dir, []string{"127.0.0.1", "zhiyun.internal"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	second, err := certs.Make(dir, []string{"10.0.0.5"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(first[0])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	for host, files := range map[string][]string{"127.0.0.1": first, "zhiyun.internal": first, "10.0.0.5": second} {
		pair, err := tls.LoadX509KeyPair(files[1], files[2])
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: pool}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
		if info, err := os.Stat(files[2]); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("key of %s: %v, %v; want mode 600", host, info.Mode(), err)
		}
	}
	for _, hosts := range [][]string{nil, {"../x"}, {"a/b"}, {""}} {
		if _, err := certs.Make(dir, hosts, time.Hour); err == nil {
			t.Errorf("Make for %q made something", hosts)
		}
	}
}
