// Package certs makes a small private CA and the certificates that it signs, for servers and agents that talk over
// TLS without a CA of their own.
package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// caYears is how long the CA is good for.
const caYears = 10

var fileRE = regexp.MustCompile(`^[A-Za-z0-9.:_-]+$`)

// Make writes ca.pem and ca-key.pem to the folder if there is no CA yet, and one certificate with its key, named
// after the first host, that is good for all hosts, as a server's and as a client's. It returns the files of the
// certificate: ca.pem, HOST.pem and HOST-key.pem. Keys have mode 0600. An existing certificate is replaced.
func Make(dir string, hosts []string, valid time.Duration) ([]string, error) {
	for _, host := range hosts {
		if !fileRE.MatchString(host) {
			return nil, fmt.Errorf("certs: host %q: want a host name or an IP address", host)
		}
	}
	if len(hosts) == 0 || valid <= 0 {
		return nil, errors.New("certs: give at least one host, and a positive time of validity")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("certs: %w", err)
	}
	ca, caKey, err := authority(dir)
	if err != nil {
		return nil, err
	}
	template, err := template(hosts[0], valid)
	if err != nil {
		return nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, fmt.Errorf("certs: sign the certificate of %s: %w", hosts[0], err)
	}
	certFile, keyFile := filepath.Join(dir, hosts[0]+".pem"), filepath.Join(dir, hosts[0]+"-key.pem")
	if err := errors.Join(writeKey(keyFile, key), writePEM(certFile, "CERTIFICATE", der, 0o644)); err != nil {
		return nil, err
	}
	return []string{filepath.Join(dir, "ca.pem"), certFile, keyFile}, nil
}

// authority reads the folder's CA, or makes it.
func authority(dir string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certFile, keyFile := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca-key.pem")
	certPEM, err := os.ReadFile(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		return newAuthority(certFile, keyFile)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("certs: %w", err)
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("certs: there is %s but not its key: %w", certFile, err)
	}
	certBlock, _ := pem.Decode(certPEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if certBlock == nil || keyBlock == nil {
		return nil, nil, fmt.Errorf("certs: %s or %s is not PEM", certFile, keyFile)
	}
	ca, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("certs: %s: %w", certFile, err)
	}
	key, err := x509.ParseECPrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("certs: %s: %w", keyFile, err)
	}
	return ca, key, nil
}

func newAuthority(certFile, keyFile string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	template, err := template("zhiyun CA", caYears*365*24*time.Hour)
	if err != nil {
		return nil, nil, err
	}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, fmt.Errorf("certs: make the CA: %w", err)
	}
	// The key first: a certificate without its key would be taken for a CA.
	if err := writeKey(keyFile, key); err != nil {
		return nil, nil, err
	}
	if err := writePEM(certFile, "CERTIFICATE", der, 0o644); err != nil {
		return nil, nil, err
	}
	ca, err := x509.ParseCertificate(der)
	return ca, key, err
}

func template(name string, valid time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: []string{"zhiyun"}},
		NotBefore:    time.Now().Add(-5 * time.Minute), // clocks differ
		NotAfter:     time.Now().Add(valid),
	}, nil
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "EC PRIVATE KEY", der, 0o600)
}

// writePEM replaces the file in one motion.
func writePEM(path, kind string, der []byte, mode fs.FileMode) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".pem-*")
	if err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	defer os.Remove(temp.Name())
	err = errors.Join(pem.Encode(temp, &pem.Block{Type: kind, Bytes: der}), temp.Chmod(mode), temp.Sync(), temp.Close())
	if err != nil {
		return fmt.Errorf("certs: write %s: %w", path, err)
	}
	return os.Rename(temp.Name(), path)
}
