package control

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/certs"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// Trust is what this server's devices trust, and who signs their certificates. It is asked at each use, so that a CA can
// be rotated under a server that runs.
type Trust interface {
	// Pin is the pin of the CA that the server's own certificate is signed by; empty without TLS.
	Pin() string
	// Bundle is what devices are to trust, PEM; nil for the system's roots, or without TLS.
	Bundle() ([]byte, error)
	// Authority signs certificates; nil if this server has no CA's key: then devices get tokens.
	Authority() (*certs.Authority, error)
}

// enrolling serves EnrolService.
type enrolling struct{ *API }

// caller is who enrols or renews, as the guard in front of the API has proved it.
func (e enrolling) caller(ctx context.Context, role auth.Role) (auth.Identity, error) {
	id, ok := auth.From(ctx)
	if !ok || id.Role != role || id.Credential == "" {
		return id, fmt.Errorf("%w: this takes a credential of the role %s", auth.ErrDenied, role)
	}
	return id, nil
}

func (e enrolling) Enrol(ctx context.Context, q *connect.Request[pb.EnrolRequest]) (*connect.Response[pb.EnrolResponse], error) {
	id, err := e.caller(ctx, auth.Enrol)
	if err != nil {
		return nil, err
	}
	if !e.exchanges.Take(id.Credential) {
		return nil, fmt.Errorf("%w: token %s", ErrRate, id.Credential)
	}
	return e.grant(ctx, id, q.Msg, "device.enrol", func(in center.EnrolIn) (center.Credential, error) {
		return e.config.Centers.Credentials.Enrol(ctx, id.Credential, in)
	})
}

func (e enrolling) Renew(ctx context.Context, q *connect.Request[pb.EnrolRequest]) (*connect.Response[pb.EnrolResponse], error) {
	id, err := e.caller(ctx, auth.Agent)
	if err != nil {
		return nil, err
	}
	if !e.exchanges.Take(id.Credential) {
		return nil, fmt.Errorf("%w: %s", ErrRate, id.Via)
	}
	return e.grant(ctx, id, q.Msg, "device.renew", func(in center.EnrolIn) (center.Credential, error) {
		return e.config.Centers.Credentials.Renew(ctx, id, in)
	})
}

// grant keeps the credential, and then hands it out: what is handed out is in force.
func (e enrolling) grant(ctx context.Context, id auth.Identity, q *pb.EnrolRequest, action string, keep func(center.EnrolIn) (center.Credential, error)) (*connect.Response[pb.EnrolResponse], error) {
	var authority *certs.Authority
	var bundle []byte
	var err error
	if e.config.Trust != nil {
		authority, err = e.config.Trust.Authority()
		if err == nil {
			bundle, err = e.config.Trust.Bundle()
		}
		if err != nil {
			return nil, err
		}
	}
	in := center.EnrolIn{Device: q.Device, Form: center.FormToken, Hash: q.TokenHash, TTL: e.config.DeviceLife}
	var request *x509.CertificateRequest
	if authority != nil && len(q.Csr) > 0 {
		if request, err = certs.ParseRequest(q.Csr); err != nil {
			return nil, rpc.Invalid("csr", "(DER)", err.Error())
		}
		sum := sha256.Sum256(request.RawSubjectPublicKeyInfo)
		in.Form, in.Hash = center.FormCertificate, hex.EncodeToString(sum[:])
	}
	made, err := keep(in)
	if err != nil {
		return nil, err
	}
	out := &pb.EnrolResponse{Id: made.ID, Trust: bundle, Expires: timestamppb.New(made.Expires)}
	if request != nil {
		if out.Certificate, err = authority.Sign(request, string(auth.Agent)+":"+made.Name, made.Expires); err != nil {
			return nil, err
		}
	}
	c := &pb.Cause{Actor: string(auth.Agent) + ":" + made.Name, Reason: "by " + id.Via}
	err = e.audit(ctx, c, action, "device/"+made.Name, map[string]any{"credential": made.ID, "form": made.Form, "expires": made.Expires})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(out), nil
}

func (e enrolling) Trust(context.Context, *connect.Request[pb.TrustRequest]) (*connect.Response[pb.TrustResponse], error) {
	if e.config.Trust == nil {
		return connect.NewResponse(&pb.TrustResponse{}), nil
	}
	bundle, err := e.config.Trust.Bundle()
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.TrustResponse{Trust: bundle}), nil
}

// ErrRate says that a credential was exchanged or renewed too often.
var ErrRate = errors.New("control: too many exchanges with one credential; wait a minute")

// One credential may be exchanged or renewed so often at once, and then once in so long.
const (
	exchangeBurst = 10
	exchangeEvery = 10 * time.Second
)
