package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Rotate makes a new CA in the folder. From then on it signs; the old ones stay in ca.pem behind it, so that what they have
// signed is trusted until it is replaced, and what the new one signs is trusted by whoever has read the file since.
//
//	one CA --Rotate--> new + old: both trusted, the new one signs --all agents and servers renewed--> Retire --> one CA
func Rotate(dir string) error {
	certFile, keyFile := filepath.Join(dir, CAFile), filepath.Join(dir, CAKeyFile)
	if _, err := os.Stat(certFile + draft); err == nil {
		return finish(dir) // of a rotation that was cut off
	}
	old, err := OpenAuthority(certFile, keyFile)
	if err != nil {
		return err
	}
	_, key, der, err := newAuthority()
	if err != nil {
		return err
	}
	ders := [][]byte{der}
	for _, c := range old.bundle {
		if time.Now().Before(c.NotAfter) {
			ders = append(ders, c.Raw)
		}
	}
	// The certificates are the last draft: where they are, both are, and another Rotate finishes what this one began.
	if err := writeKey(keyFile+draft, key); err != nil {
		return err
	}
	if err := writePEM(certFile+draft, 0o644, ders...); err != nil {
		return err
	}
	return finish(dir)
}

// draft ends the names of files that a rotation has not put in their places yet.
const draft = ".next"

// finish moves the drafts of a rotation to their places, the key first.
func finish(dir string) error {
	for _, name := range []string{CAKeyFile, CAFile} {
		err := os.Rename(filepath.Join(dir, name+draft), filepath.Join(dir, name))
		if err != nil && !(name == CAKeyFile && errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("certs: put the new CA in its place: %w", err)
		}
	}
	return nil
}

// Retire drops all CAs of the folder but the one that signs. Certificates that the others signed are void from then on.
// It refuses while the certificate of a host in the folder is signed by one of them.
func Retire(dir string) error {
	a, err := OpenAuthority(filepath.Join(dir, CAFile), filepath.Join(dir, CAKeyFile))
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.ca)
	for _, file := range files {
		bundle, err := ReadBundle(file)
		if err != nil || filepath.Base(file) == CAFile { // keys have no certificate in them
			continue
		}
		if _, err := bundle[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			return fmt.Errorf("certs: %s is still signed by an old CA; make it anew: zhiyun certs make %s HOST ...", file, dir)
		}
	}
	return writePEM(filepath.Join(dir, CAFile), 0o644, a.ca.Raw)
}
