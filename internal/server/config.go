// Package server is the control plane as an importable package: it opens the record, joins the packages, and
// serves their APIs on a private socket and, with tokens, on a TCP address.
package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Config says where the server keeps its data and whom it serves. Zero fields have the stated defaults.
type Config struct {
	// Dir holds everything of this server: the embedded etcd, the SQL files, blobs, the key, and control.sock.
	// Required; made with mode 0700.
	Dir string

	// Listen is a TCP address for agents and operators, as "127.0.0.1:7070". Default: the socket alone.
	// Off loopback, TLS is required.
	Listen string

	// Hooks is a TCP address for webhooks, as "127.0.0.1:7072": POST /hooks/TRIGGER, and nothing else. Default: none. Off loopback, TLS is required.
	Hooks string

	// Limits bounds what flows run at a time.
	Limits flow.Limits

	// Hosts are names, besides loopback's and the listener's own address, by which clients may call.
	Hosts []string

	// CertFile and KeyFile are the server's certificate; all files are read again when they change. ClientCAFile, if given,
	// demands of every client a certificate signed by a CA in it (or in CAFile), besides its token; enrolment is spared.
	CertFile, KeyFile, ClientCAFile string

	// CAFile holds the CAs that devices are told to trust, CAKeyFile the key of the first, which signs the certificates of
	// devices that enrol. Default: what CertFile ends with, or the system's roots; and devices get tokens, not certificates.
	CAFile, CAKeyFile string

	// DeviceLife is how long the credential of a device is good for; its agent renews it at two thirds. Default 30 days.
	DeviceLife time.Duration

	// FlowKeep is how long executions are kept after their end, with their histories and logs. Default 0: for ever.
	FlowKeep time.Duration

	// Etcd lists the endpoints of an external cluster, with its TLS files. Default: one embedded member in Dir.
	Etcd                                  []string
	EtcdCAFile, EtcdCertFile, EtcdKeyFile string

	// FlowStore is a PostgreSQL database, as "postgres://zhiyun@db/flows", in which this server keeps its executions and which it may share with
	// others: they take over from one that dies. A password belongs into the file that PGPASSFILE names. Default: a file in Dir, for this server alone.
	FlowStore string

	// Exe is the zhiyun binary that runs the tools. Default: this program's own.
	Exe string

	// Bucket is the width of the buckets in which outcomes are kept. Default 10 s.
	Bucket time.Duration

	// Tick is how often the controllers look. Default 1 s for gray, which paces itself by its policy, and for scale.
	Tick time.Duration

	// Grace is how long an agent may be away before its device counts as lost. Default 30 s.
	Grace time.Duration

	// HAProxy is the runtime API's socket of an HAProxy that holds the virtual addresses, as
	// "unix:///run/haproxy/admin.sock". Default: the built-in TCP proxy.
	HAProxy string

	// SinkNetworks are those in which notification sinks may be called although they are link-local, or known for the metadata services of clouds.
	// Default: none.
	SinkNetworks []netip.Prefix

	// Approve says how requests for permissions are answered that have no policy of their own: "manual" by a person,
	// or "auto" at once. Default manual.
	Approve string

	// Scale turns the decider on. Nil means on.
	Scale *bool

	Logger *slog.Logger // default: off
}

// filled returns the config with defaults, or all its faults at once.
func (c Config) filled() (Config, error) {
	var faults []error
	if c.Dir == "" {
		faults = append(faults, errors.New("server: Dir is empty: name a folder for the server's data"))
	} else if dir, err := filepath.Abs(c.Dir); err != nil {
		faults = append(faults, fmt.Errorf("server: Dir %q: %w", c.Dir, err))
	} else {
		c.Dir = dir
	}
	for _, door := range []struct{ name, address, example string }{{"Listen", c.Listen, "127.0.0.1:7070"}, {"Hooks", c.Hooks, "127.0.0.1:7072"}} {
		if door.address == "" {
			continue
		}
		host, _, err := net.SplitHostPort(door.address)
		if err != nil {
			faults = append(faults, fmt.Errorf("server: %s %q: want host:port, as %s: %w", door.name, door.address, door.example, err))
		} else if addr, err := netip.ParseAddr(host); (err != nil || !addr.IsLoopback()) && host != "localhost" && c.CertFile == "" {
			faults = append(faults, fmt.Errorf("server: %s %q is reachable from outside: give CertFile and KeyFile, or listen on 127.0.0.1", door.name, door.address))
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		faults = append(faults, errors.New("server: CertFile and KeyFile belong together: give both or none"))
	}
	if c.ClientCAFile != "" && c.CertFile == "" {
		faults = append(faults, errors.New("server: ClientCAFile without CertFile: client certificates need TLS"))
	}
	if c.CAKeyFile != "" && c.CAFile == "" {
		faults = append(faults, errors.New("server: CAKeyFile without CAFile: give the file of the CA whose key it is"))
	}
	if c.CAFile != "" && c.CertFile == "" {
		faults = append(faults, errors.New("server: CAFile without CertFile: what devices are to trust signs nothing here; give CertFile and KeyFile"))
	}
	if c.DeviceLife < 0 {
		faults = append(faults, fmt.Errorf("server: DeviceLife is %v: give a positive duration, or 0 for 30 days", c.DeviceLife))
	}
	if c.FlowKeep < 0 {
		faults = append(faults, fmt.Errorf("server: FlowKeep is %v: give a positive duration, or 0 for ever", c.FlowKeep))
	}
	for _, endpoint := range c.Etcd {
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != "http" {
			continue // https, or what etcd's client will refuse by itself
		}
		if addr, err := netip.ParseAddr(u.Hostname()); (err != nil || !addr.IsLoopback()) && u.Hostname() != "localhost" {
			faults = append(faults, fmt.Errorf("server: Etcd %q is reached over the network in the clear: who can write there may do everything; use https and EtcdCAFile, and client certificates", endpoint))
		}
	}
	if u, err := url.Parse(c.FlowStore); c.FlowStore != "" && (err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql") {
		faults = append(faults, errors.New("server: FlowStore is not a postgres:// URL: only PostgreSQL holds flows of several servers; leave it empty for a file of this server's own"))
	}
	if (c.EtcdCertFile == "") != (c.EtcdKeyFile == "") {
		faults = append(faults, errors.New("server: EtcdCertFile and EtcdKeyFile belong together: give both or none"))
	}
	for _, field := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{{"Bucket", &c.Bucket, 10 * time.Second}, {"Tick", &c.Tick, time.Second}, {"Grace", &c.Grace, 30 * time.Second}} {
		if *field.value == 0 {
			*field.value = field.def
		}
		if *field.value < 10*time.Millisecond {
			faults = append(faults, fmt.Errorf("server: %s is %v: give at least 10ms", field.name, *field.value))
		}
	}
	if c.Exe == "" {
		exe, err := os.Executable()
		if err != nil {
			faults = append(faults, fmt.Errorf("server: Exe is empty and this program's own path is unknown: %w", err))
		}
		c.Exe = exe
	}
	switch c.Approve {
	case "":
		c.Approve = "manual"
	case "manual", "auto":
	default:
		faults = append(faults, fmt.Errorf("server: Approve is %q: want manual or auto", c.Approve))
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, errors.Join(faults...)
}

// etcdTLS is how an external cluster is reached; nil for cleartext.
func (c Config) etcdTLS() (*tls.Config, error) {
	if c.EtcdCAFile == "" && c.EtcdCertFile == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.EtcdCAFile != "" {
		pool, err := pool(c.EtcdCAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	if c.EtcdCertFile != "" {
		certificate, err := tls.LoadX509KeyPair(c.EtcdCertFile, c.EtcdKeyFile)
		if err != nil {
			return nil, fmt.Errorf("server: etcd client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return config, nil
}

func pool(file string) (*x509.CertPool, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("server: %s holds no PEM certificate", file)
	}
	return pool, nil
}
