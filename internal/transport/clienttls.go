package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/zhiyun-ops/zhiyun/internal/certs"
)

// ClientFiles name what a client needs to talk TLS with a server of a private CA. All fields are optional.
type ClientFiles struct {
	// CA is a PEM file with the CAs that the server's certificate may be signed by, read at each handshake. Default: the
	// system's roots.
	CA string
	// Cert and Key are PEM files with the client's own certificate, read at each handshake. Default: none.
	Cert, Key string
}

// The variables in which a process hands the files to those that it starts.
const (
	EnvCA   = "ZHIYUN_TLS_CA"
	EnvCert = "ZHIYUN_TLS_CERT"
	EnvKey  = "ZHIYUN_TLS_KEY"
)

// FilesFromEnv reads the variables; getenv is os.Getenv, or what stands for it.
func FilesFromEnv(getenv func(string) string) ClientFiles {
	return ClientFiles{CA: getenv(EnvCA), Cert: getenv(EnvCert), Key: getenv(EnvKey)}
}

// Env is the files as variables, as NAME=value; those that are not given are left out.
func (f ClientFiles) Env() []string {
	var env []string
	for _, v := range []struct{ name, value string }{{EnvCA, f.CA}, {EnvCert, f.Cert}, {EnvKey, f.Key}} {
		if v.value != "" {
			env = append(env, v.name+"="+v.value)
		}
	}
	return env
}

// TLS returns the configuration for DialConfig; nil if no file is given.
func (f ClientFiles) TLS() (*tls.Config, error) {
	if f == (ClientFiles{}) {
		return nil, nil
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("a client's certificate and its key belong together: give both or none")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if f.CA != "" {
		read := func() ([]*x509.Certificate, error) { return certs.ReadBundle(f.CA) }
		if _, err := read(); err != nil {
			return nil, fmt.Errorf("CA of the server: %w", err)
		}
		config = certs.Trusting(read)
	}
	if f.Cert != "" {
		load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certificate, err := f.pair()
			return &certificate, err
		}
		if _, err := load(nil); err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		config.GetClientCertificate = load
	}
	return config, nil
}

// pair reads the certificate and its key; both at once if they share a file, which may be replaced at any moment.
func (f ClientFiles) pair() (tls.Certificate, error) {
	if f.Cert != f.Key {
		return tls.LoadX509KeyPair(f.Cert, f.Key)
	}
	both, err := os.ReadFile(f.Cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(both, both)
}
