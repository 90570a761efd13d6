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
	"strings"
	"time"
)

// caYears is how long the CA is good for.
const caYears = 10

var fileRE = regexp.MustCompile(`^[A-Za-z0-9.:_-]+$`)

// Files of a folder that Make writes.
const (
	CAFile    = "ca.pem"     // the CAs to trust: the first one signs, the others are on their way out
	CAKeyFile = "ca-key.pem" // the key of the first
)

// Make writes ca.pem and ca-key.pem to the folder if there is no CA yet, and one certificate with its key, named
// after the first host, that is good for all hosts, as a server's and as a client's. It returns the files of the
// certificate: ca.pem, HOST.pem and HOST-key.pem. Keys have mode 0600. An existing certificate is replaced.
func Make(dir string, hosts []string, valid time.Duration) ([]string, error) {
	for _, host := range hosts {
		if !fileRE.MatchString(host) {
			return nil, fmt.Errorf("certs: host %q: want a host name or an IP address", host)
		}
	}
	for _, host := range hosts {
		if strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return nil, fmt.Errorf("certs: host %q: want a host name or an IP address, without a port", host)
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
	if err := errors.Join(writeKey(keyFile, key), writePEM(certFile, 0o644, der)); err != nil {
		return nil, err
	}
	return []string{filepath.Join(dir, CAFile), certFile, keyFile}, nil
}

// authority reads the folder's CA, or makes it.
func authority(dir string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certFile, keyFile := filepath.Join(dir, CAFile), filepath.Join(dir, CAKeyFile)
	if _, err := os.Stat(certFile); errors.Is(err, fs.ErrNotExist) {
		ca, key, der, err := newAuthority()
		if err != nil {
			return nil, nil, err
		}
		// The key first: a certificate without its key would be taken for a CA.
		return ca, key, errors.Join(writeKey(keyFile, key), writePEM(certFile, 0o644, der))
	}
	a, err := OpenAuthority(certFile, keyFile)
	if err != nil {
		return nil, nil, err
	}
	return a.ca, a.key, nil
}

func newAuthority() (*x509.Certificate, *ecdsa.PrivateKey, []byte, error) {
	template, err := template("zhiyun CA", caYears*365*24*time.Hour)
	if err != nil {
		return nil, nil, nil, err
	}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("certs: make the CA: %w", err)
	}
	ca, err := x509.ParseCertificate(der)
	return ca, key, der, err
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
	block, err := KeyPEM(key)
	if err != nil {
		return err
	}
	return write(path, block, 0o600)
}

// writePEM replaces the file by the certificates.
func writePEM(path string, mode fs.FileMode, ders ...[]byte) error {
	var content []byte
	for _, der := range ders {
		content = append(content, CertificatePEM(der)...)
	}
	return write(path, content, mode)
}

// write replaces the file in one motion.
func write(path string, content []byte, mode fs.FileMode) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".pem-*")
	if err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(content)
	if err := errors.Join(err, temp.Chmod(mode), temp.Sync(), temp.Close()); err != nil {
		return fmt.Errorf("certs: write %s: %w", path, err)
	}
	return os.Rename(temp.Name(), path)
}

// CertificatePEM is a certificate as it stands in files.
func CertificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// KeyPEM is a private key as it stands in files.
func KeyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("certs: encode the key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads what KeyPEM wrote.
func ParseKey(content []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, errors.New("certs: no PEM key in it")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certs: read the key: %w", err)
	}
	return key, nil
}
