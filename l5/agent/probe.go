package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// ProbeLabel is the label by which an instance says how it is probed:
//
//	tcp             a connection is opened and closed; so is one without the label
//	http            GET / is answered with a status below 500
//	http:/healthz   GET /healthz is
//	grpc            grpc.health.v1.Health/Check says that the server is serving
//	grpc:NAME       the same for service NAME
//
// https and grpcs do the same over TLS, without a look at the certificate: a probe sends nothing that is secret. Whoever
// registers an instance writes the label, and agents elsewhere follow it: so the label names a path and never a host, no
// redirect is followed, nothing of the answer's body is read, and ErrProbe keeps probes from addresses that are no
// instance's.
const ProbeLabel = "probe"

// serving is grpc.health.v1.HealthCheckResponse.SERVING.
const serving = 1

// ErrProbe says that an instance is not probed: for what its label says, or because its address is one at which no service
// is but the host's own, as link-local ones and those where clouds hand out credentials.
var ErrProbe = errors.New("l5/agent: not probed")

const (
	// maxProbePath bounds the path or name in a label, in bytes.
	maxProbePath = 1 << 10
	// maxProbeAnswer bounds the head of an HTTP answer, and the message of a gRPC one, in bytes.
	maxProbeAnswer = 64 << 10
)

// metadata are addresses at which clouds tell a host who it is, beside the link-local ones.
var metadata = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("192.0.0.192"), netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd20:ce::254"),
}

// probeDialer looks at the address that is really dialled: a name may stand for any.
var probeDialer = net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %q is no address", ErrProbe, address)
	}
	addr := to.Addr().Unmap().WithZone("")
	if addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified() || slices.Contains(metadata, addr) {
		return fmt.Errorf("%w: no service is at %s", ErrProbe, addr)
	}
	return nil
}}

// Prober probes instances as their labels say. It is safe for concurrent use.
type Prober struct {
	plain, grpc *http.Client
}

// NewProber returns a prober. It keeps no connections.
func NewProber() *Prober {
	transport := func(h2 bool) *http.Transport {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(!h2)
		protocols.SetHTTP2(h2)
		protocols.SetUnencryptedHTTP2(h2)
		return &http.Transport{
			DisableKeepAlives: true, Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see ProbeLabel
			TLSHandshakeTimeout: 5 * time.Second, DialContext: probeDialer.DialContext, MaxResponseHeaderBytes: maxProbeAnswer,
		}
	}
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Prober{
		plain: &http.Client{Transport: transport(false), CheckRedirect: noRedirect},
		grpc:  &http.Client{Transport: transport(true), CheckRedirect: noRedirect},
	}
}

// Probe asks the instance at addr whether it serves. The error says why not.
func (p *Prober) Probe(ctx context.Context, addr string, labels map[string]string) error {
	kind, detail, _ := strings.Cut(labels[ProbeLabel], ":")
	if len(detail) > maxProbePath {
		return fmt.Errorf("%w: the label %s has %d bytes, more than %d", ErrProbe, ProbeLabel, len(labels[ProbeLabel]), maxProbePath)
	}
	switch kind {
	case "http", "https":
		path, err := url.Parse("/" + strings.TrimLeft(detail, "/"))
		if err != nil || path.Host != "" || path.Scheme != "" {
			return fmt.Errorf("%w: the label %s has %q: want a path, as in http:/healthz", ErrProbe, ProbeLabel, detail)
		}
		return p.probeHTTP(ctx, (&url.URL{Scheme: kind, Host: addr, Path: path.Path, RawPath: path.RawPath, RawQuery: path.RawQuery}).String())
	case "grpc":
		return p.probeGRPC(ctx, (&url.URL{Scheme: "http", Host: addr}).String(), detail)
	case "grpcs":
		return p.probeGRPC(ctx, (&url.URL{Scheme: "https", Host: addr}).String(), detail)
	}
	conn, err := probeDialer.DialContext(ctx, "tcp", addr) // what this version does not know is probed as tcp
	if err != nil {
		return err
	}
	return conn.Close()
}

func (p *Prober) probeHTTP(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "zhiyun-l5-probe")
	response, err := p.plain.Do(request)
	if err != nil {
		return err
	}
	if response.StatusCode >= http.StatusInternalServerError {
		err = fmt.Errorf("GET %s: status %d", url, response.StatusCode)
	}
	return errors.Join(err, response.Body.Close())
}

// probeGRPC calls the health service. Its messages have one field each, a string and an enum, as the wrappers have.
func (p *Prober) probeGRPC(ctx context.Context, base, service string) error {
	client := connect.NewClient[wrapperspb.StringValue, wrapperspb.Int32Value](p.grpc, base+"/grpc.health.v1.Health/Check", connect.WithGRPC(), connect.WithReadMaxBytes(maxProbeAnswer))
	response, err := client.CallUnary(ctx, connect.NewRequest(wrapperspb.String(service)))
	if err != nil {
		return err
	}
	if status := response.Msg.GetValue(); status != serving {
		return fmt.Errorf("gRPC health of %q is %d, not serving", service, status)
	}
	return nil
}
