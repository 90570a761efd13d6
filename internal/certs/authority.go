package certs

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// Authority signs the certificates of devices. It is safe for concurrent use.
type Authority struct {
	ca     *x509.Certificate
	key    *ecdsa.PrivateKey
	bundle []*x509.Certificate // ca is the first
}

// OpenAuthority reads a file of CA certificates, of which the first signs, and the key of that one.
func OpenAuthority(certFile, keyFile string) (*Authority, error) {
	bundle, err := ReadBundle(certFile)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(keyFile)
	if err != nil {
		return nil, fmt.Errorf("certs: there is %s but not its key: %w", certFile, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("certs: the CA's key %s has mode %o: others can read it; chmod 600 it, and rotate the CA if they did", keyFile, info.Mode().Perm())
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("certs: %w", err)
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("certs: %s: %w", keyFile, err)
	}
	a := &Authority{ca: bundle[0], key: key, bundle: bundle}
	if public, ok := a.ca.PublicKey.(*ecdsa.PublicKey); !a.ca.IsCA || !ok || !public.Equal(&key.PublicKey) {
		return nil, fmt.Errorf("certs: %s is not the key of the first certificate of %s, or that is no CA; was a rotation cut off? run it again: zhiyun certs rotate FOLDER", keyFile, certFile)
	}
	return a, nil
}

// ReadBundle reads a file of PEM certificates: one at least.
func ReadBundle(file string) ([]*x509.Certificate, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("certs: %w", err)
	}
	bundle, err := ParseBundle(content)
	if err != nil {
		return nil, fmt.Errorf("certs: %s: %w", file, err)
	}
	return bundle, nil
}

// ParseBundle reads PEM certificates: one at least.
func ParseBundle(content []byte) ([]*x509.Certificate, error) {
	var bundle []*x509.Certificate
	for len(content) > 0 {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		bundle = append(bundle, c)
	}
	if len(bundle) == 0 {
		return nil, errors.New("no PEM certificate in it")
	}
	return bundle, nil
}

// Bundle is what clients are to trust, PEM.
func (a *Authority) Bundle() []byte {
	var out []byte
	for _, c := range a.bundle {
		out = append(out, CertificatePEM(c.Raw)...)
	}
	return out
}

// Expires is when the CA that signs ends.
func (a *Authority) Expires() time.Time { return a.ca.NotAfter }

// Pin is the pin of the CA that signs.
func (a *Authority) Pin() string { return Pin(a.ca) }

// ParseRequest reads a PKCS #10 request and checks that its sender has the key. Names that it asks for are not looked
// at: who signs says them.
func ParseRequest(der []byte) (*x509.CertificateRequest, error) {
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("certs: read the certificate request: %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certs: the certificate request is not signed by its key: %w", err)
	}
	if key, ok := request.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve.Params().BitSize < 256 {
		return nil, errors.New("certs: the certificate request has another key than an ECDSA one of 256 bits or more; make one with P-256")
	}
	return request, nil
}

// Sign makes a client certificate of a request: good for what it is told to be, until a moment that is not after the
// CA's own end. It cannot be a server's.
func (a *Authority) Sign(request *x509.CertificateRequest, name string, until time.Time) ([]byte, error) {
	template, err := template(name, time.Until(until))
	if err != nil {
		return nil, err
	}
	if a.ca.NotAfter.Before(until) {
		return nil, fmt.Errorf("certs: the CA ends at %s, before the certificate would: rotate it: zhiyun certs rotate FOLDER", a.ca.NotAfter.Format(time.RFC3339))
	}
	template.NotAfter = until
	template.Subject = pkix.Name{CommonName: name, Organization: []string{"zhiyun"}}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, a.ca, request.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("certs: sign the certificate of %s: %w", name, err)
	}
	return CertificatePEM(der), nil
}
