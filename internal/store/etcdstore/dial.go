package etcdstore

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"net/url"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// DialConfig says how to reach a cluster.
type DialConfig struct {
	// Endpoints of the cluster, as https://host:port, http://127.0.0.1:port or unix:///path; at least one.
	Endpoints []string
	// TLS is required for every endpoint that is neither loopback nor a unix socket.
	TLS *tls.Config
	// Username and Password sign in to a cluster with etcd's own access control; empty is none.
	Username, Password string
	// Timeout of making a connection; 5 s if zero. A connection whose member is silent is given up after 10 s.
	Timeout time.Duration
	// Logger gets the client's warnings; nil is off.
	Logger *slog.Logger
}

// Dial returns a client of the cluster. It checks the configuration and does not wait for a connection: the first
// call does. Close the client when done.
func Dial(config DialConfig) (*clientv3.Client, error) {
	var faults []error
	if len(config.Endpoints) == 0 {
		faults = append(faults, errors.New("etcdstore: DialConfig.Endpoints is empty; give at least one, such as https://10.0.0.1:2379"))
	}
	for _, endpoint := range config.Endpoints {
		if err := checkEndpoint(endpoint, config.TLS != nil); err != nil {
			faults = append(faults, err)
		}
	}
	if config.Timeout < 0 {
		faults = append(faults, fmt.Errorf("etcdstore: DialConfig.Timeout is %v; give a positive duration, or 0 for 5 s", config.Timeout))
	}
	if (config.Username == "") != (config.Password == "") {
		faults = append(faults, errors.New("etcdstore: DialConfig.Username and Password go together; give both or none"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	timeout := config.Timeout
	if timeout == 0 {
		timeout = 5 * time.Second
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: config.Endpoints, TLS: config.TLS, Username: config.Username, Password: config.Password,
		DialTimeout: timeout, DialKeepAliveTime: 7 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		MaxCallSendMsgSize: math.MaxInt32, MaxCallRecvMsgSize: math.MaxInt32,
		Logger: zapLogger(config.Logger, nil),
	})
	if err != nil {
		return nil, fmt.Errorf("etcdstore: dial %s: %w", strings.Join(config.Endpoints, ", "), err)
	}
	return client, nil
}

func checkEndpoint(endpoint string, secured bool) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return fmt.Errorf("etcdstore: DialConfig.Endpoints has %q: %w", endpoint, err)
	}
	switch u.Scheme {
	case "unix":
		return nil
	case "https":
		if !secured {
			return fmt.Errorf("etcdstore: DialConfig.Endpoints has %q but DialConfig.TLS is nil; give the cluster's CA and a client certificate", endpoint)
		}
		return nil
	case "http":
		if host := u.Hostname(); host != "localhost" {
			if addr, err := netip.ParseAddr(host); err != nil || !addr.IsLoopback() {
				return fmt.Errorf("etcdstore: DialConfig.Endpoints has %q, which is not on this machine and not encrypted; use https and DialConfig.TLS", endpoint)
			}
		}
		return nil
	}
	return fmt.Errorf("etcdstore: DialConfig.Endpoints has %q; write https://host:port, http://127.0.0.1:port or unix:///path", endpoint)
}
