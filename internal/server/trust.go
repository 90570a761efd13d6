package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/certs"
)

// trust is the server's side of TLS: its own certificate, whose certificates it takes, what devices are to trust, and what
// signs theirs. Everything is read from the files again within a second of a change: rotation needs no restart.
type trust struct {
	config Config

	mu    sync.Mutex
	files trustFiles // guarded by mu
	until time.Time  // guarded by mu; when files are read again
}

// trustFiles is what the files hold.
type trustFiles struct {
	own       tls.Certificate
	chain     []*x509.Certificate // of own, up to the CA that the pin names
	bundle    []*x509.Certificate // that devices are to trust; nil: the system's roots
	clients   *x509.CertPool      // nil: no client certificate is taken
	authority *certs.Authority    // nil: devices get tokens
}

// newTrust returns nil for a server without TLS.
func newTrust(config Config) (*trust, error) {
	if config.CertFile == "" {
		return nil, nil
	}
	t := &trust{config: config}
	_, err := t.read()
	return t, err
}

func (t *trust) read() (trustFiles, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Now().Before(t.until) {
		return t.files, nil
	}
	files, err := t.load()
	if err != nil {
		if t.until.IsZero() {
			return files, err
		}
		return t.files, nil // half a rotation: what was read before is good until the rest is there
	}
	t.files, t.until = files, time.Now().Add(time.Second)
	return files, nil
}

func (t *trust) load() (f trustFiles, err error) {
	c := t.config
	if info, err := os.Stat(c.KeyFile); err == nil && info.Mode().Perm()&0o077 != 0 {
		return f, fmt.Errorf("server: KeyFile %s has mode %o: others can read it; chmod 600 it, and make another key if they did", c.KeyFile, info.Mode().Perm())
	}
	if f.own, err = tls.LoadX509KeyPair(c.CertFile, c.KeyFile); err != nil {
		return f, fmt.Errorf("server: certificate: %w", err)
	}
	for _, der := range f.own.Certificate {
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			return f, fmt.Errorf("server: certificate: %w", err)
		}
		f.chain = append(f.chain, parsed)
	}
	var cas []*x509.Certificate
	if c.CAFile != "" {
		if cas, err = certs.ReadBundle(c.CAFile); err != nil {
			return f, fmt.Errorf("server: CAFile: %w", err)
		}
		f.bundle = cas
		last := f.chain[len(f.chain)-1]
		if i := slices.IndexFunc(cas, func(ca *x509.Certificate) bool { return last.CheckSignatureFrom(ca) == nil }); i >= 0 && !last.Equal(cas[i]) {
			// Who has only the pin yet must be sent the certificate that it names.
			f.chain = append(f.chain, cas[i])
			f.own.Certificate = append(f.own.Certificate, cas[i].Raw)
		}
	} else if _, err := f.chain[0].Verify(x509.VerifyOptions{Intermediates: poolOf(f.chain[1:])}); err != nil {
		f.bundle = f.chain[len(f.chain)-1:] // a private CA that nobody named
	}
	if c.CAKeyFile != "" {
		if f.authority, err = certs.OpenAuthority(c.CAFile, c.CAKeyFile); err != nil {
			return f, fmt.Errorf("server: CAKeyFile: %w", err)
		}
	}
	if c.ClientCAFile != "" {
		more, err := certs.ReadBundle(c.ClientCAFile)
		if err != nil {
			return f, fmt.Errorf("server: ClientCAFile: %w", err)
		}
		cas = slices.Concat(cas, more)
	}
	if len(cas) > 0 {
		f.clients = poolOf(cas)
	}
	return f, nil
}

func poolOf(bundle []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range bundle {
		pool.AddCert(c)
	}
	return pool
}

// listener is the configuration of the TCP listener. A client certificate is verified where one is given; whether one is
// demanded is the guard's business, which spares enrolment.
func (t *trust) listener() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			f, err := t.read()
			if err != nil {
				return nil, err
			}
			config := &tls.Config{Certificates: []tls.Certificate{f.own}, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}}
			if f.clients != nil {
				config.ClientCAs, config.ClientAuth = f.clients, tls.VerifyClientCertIfGiven
			}
			return config, nil
		},
	}
}

// Pin implements control.Trust.
func (t *trust) Pin() string {
	f, err := t.read()
	if err != nil || f.bundle == nil {
		return "" // the system's roots are as good
	}
	return certs.Pin(f.chain[len(f.chain)-1])
}

// Bundle implements control.Trust.
func (t *trust) Bundle() ([]byte, error) {
	f, err := t.read()
	var out []byte
	for _, c := range f.bundle {
		out = append(out, certs.CertificatePEM(c.Raw)...)
	}
	return out, err
}

// Authority implements control.Trust.
func (t *trust) Authority() (*certs.Authority, error) {
	f, err := t.read()
	return f.authority, err
}

// soon is how long before its end a certificate is reported.
const soon = 21 * 24 * time.Hour

// examine says when the server's certificate and the CAs end.
func (t *trust) examine(context.Context) (string, error) {
	f, err := t.load() // not what was good a while ago
	if err != nil {
		return "", err
	}
	var faults []error
	look := func(file string, c *x509.Certificate, mend string) {
		if left := time.Until(c.NotAfter); left < soon {
			faults = append(faults, fmt.Errorf("%s (%s) ends at %s: %s", file, c.Subject.CommonName, c.NotAfter.Format(time.RFC3339), mend))
		}
	}
	dir := filepath.Dir(t.config.CertFile)
	look(t.config.CertFile, f.chain[0], fmt.Sprintf("make another: zhiyun certs make %s HOST ...", dir))
	for i, ca := range f.bundle {
		if i == 0 {
			look("the CA", ca, fmt.Sprintf("rotate it: zhiyun certs rotate %s", dir))
		} else {
			faults = append(faults, fmt.Errorf("an old CA (until %s) is still trusted: when all devices have renewed, drop it: zhiyun certs retire %s", ca.NotAfter.Format(time.DateOnly), dir))
		}
	}
	return fmt.Sprintf("the server's certificate is good until %s", f.chain[0].NotAfter.Format(time.RFC3339)), errors.Join(faults...)
}

// examineCredentials finds devices that have not renewed what they should have.
func examineCredentials(c *center.Credentials) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		now := time.Now()
		type holder struct{ role, name string }
		last := make(map[holder]center.Credential)
		inForce := 0
		for _, one := range c.Known() {
			if one.Ended(now) || one.Role == "enrol" {
				continue
			}
			inForce++
			who := holder{string(one.Role), one.Name}
			if have, ok := last[who]; !ok || have.Expires.Before(one.Expires) {
				last[who] = one
			}
		}
		var faults []error
		for who, one := range last {
			life := one.Expires.Sub(one.Created)
			if one.Expires.Sub(now) < life/6 && len(faults) < 10 {
				faults = append(faults, fmt.Errorf("the credential %s of %s:%s ends at %s and was not renewed: is its agent up? else make another: zhiyun token",
					one.ID, who.role, who.name, one.Expires.Format(time.RFC3339)))
			}
		}
		slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return fmt.Sprintf("%d credentials of %d identities are in force", inForce, len(last)), errors.Join(faults...)
	}
}

// examineAgents names agents of devices that nobody has declared: they are let in, and nothing is ever placed on them.
func (h *house) examineAgents(context.Context) (string, error) {
	now := time.Now()
	var enrolled []string
	for _, one := range h.centers.Credentials.Known() {
		if one.Role == auth.Agent && !one.Ended(now) {
			enrolled = append(enrolled, one.Name)
		}
	}
	slices.Sort(enrolled)
	enrolled = slices.Compact(enrolled)
	var unknown []string
	for _, name := range enrolled {
		if _, err := h.cmdb.Device(name); errors.Is(err, cmdb.ErrNotFound) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		return "", fmt.Errorf("%d agents are enrolled for devices that the CMDB does not have: %s; declare them as kind: device with zhiyun apply, "+
			"or take their credentials back with zhiyun token revoke", len(unknown), strings.Join(unknown[:min(len(unknown), 10)], ", "))
	}
	return fmt.Sprintf("%d agents are enrolled, all of declared devices", len(enrolled)), nil
}
