package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
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
// https and grpcs do the same over TLS, without a look at the certificate: a probe sends nothing that is secret.
const ProbeLabel = "probe"

// serving is grpc.health.v1.HealthCheckResponse.SERVING.
const serving = 1

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
			TLSHandshakeTimeout: 5 * time.Second,
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
	switch kind {
	case "http", "https":
		return p.probeHTTP(ctx, kind+"://"+addr+"/"+strings.TrimPrefix(detail, "/"))
	case "grpc":
		return p.probeGRPC(ctx, "http://"+addr, detail)
	case "grpcs":
		return p.probeGRPC(ctx, "https://"+addr, detail)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr) // what this version does not know is probed as tcp
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
	client := connect.NewClient[wrapperspb.StringValue, wrapperspb.Int32Value](p.grpc, base+"/grpc.health.v1.Health/Check", connect.WithGRPC())
	response, err := client.CallUnary(ctx, connect.NewRequest(wrapperspb.String(service)))
	if err != nil {
		return err
	}
	if status := response.Msg.GetValue(); status != serving {
		return fmt.Errorf("gRPC health of %q is %d, not serving", service, status)
	}
	return nil
}
