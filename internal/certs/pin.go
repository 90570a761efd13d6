package certs

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
)

// ErrPin says that a server is not the one whose CA was pinned.
var ErrPin = errors.New("certs: the server's certificates do not hold the pinned CA: it is another server, or its CA was rotated since the token was made; make another token")

// Pin is the hex SHA-256 of a certificate's public key, by which somebody who has no CA yet knows the right one.
func Pin(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Pinned is the configuration of a client that knows nothing of the server but a pin: the server must send the pinned
// certificate along, and its own must be signed by that one for the name that was dialled.
func Pinned(pin string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// What stands in place of the usual check is stricter: one CA, and no other.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			for _, c := range state.PeerCertificates {
				if subtle.ConstantTimeCompare([]byte(Pin(c)), []byte(pin)) == 1 {
					roots := x509.NewCertPool()
					roots.AddCert(c)
					return verify(state, roots)
				}
			}
			return ErrPin
		},
	}
}

// ForHost returns a configuration of Pinned or Trusting that checks the server's certificate for a host, a name or an address.
// crypto/tls does not tell VerifyConnection of an address that was dialled: without this, such a server is refused.
func ForHost(config *tls.Config, host string) *tls.Config {
	config = config.Clone()
	if config == nil || !config.InsecureSkipVerify || config.VerifyConnection == nil {
		return config
	}
	check := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		state.ServerName = host
		return check(state)
	}
	return config
}

// verify is the check that crypto/tls makes, against roots of our own.
func verify(state tls.ConnectionState, roots *x509.CertPool) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("certs: the server sent no certificate")
	}
	if state.ServerName == "" {
		return errors.New("certs: the name of the server is not known, and its certificate cannot be checked for it; use ForHost")
	}
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, DNSName: state.ServerName, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("certs: the server's certificate: %w", err)
	}
	return nil
}

// Trusting is the configuration of a client that trusts the CAs of a file, read anew at each handshake: a CA that is
// rotated needs no restart.
func Trusting(read func() ([]*x509.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // crypto/tls would keep the roots that it was given first; VerifyConnection makes the same check
		VerifyConnection: func(state tls.ConnectionState) error {
			bundle, err := read()
			if err != nil {
				return err
			}
			roots := x509.NewCertPool()
			for _, c := range bundle {
				roots.AddCert(c)
			}
			return verify(state, roots)
		},
	}
}
