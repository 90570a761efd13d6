// Package auth tells who calls, and what each role may do.
//
// A caller proves who it is by a token (package center keeps their hashes), by a client certificate that this server's
// CA signed, or by being the owner of a private unix socket. Loopback is not trust: any local user or web page could
// reach it. What the proof says is an Identity; what it may do is in one table, Rows.
package auth

import (
	"context"
	"crypto/x509"
	"errors"
	"regexp"
)

// Role says what a caller may do; Rows has the whole of it.
type Role string

const (
	Operator Role = "operator" // everything
	Viewer   Role = "viewer"   // reading, and nothing else
	Tool     Role = "tool"     // what flows do, on behalf of whoever started them
	Agent    Role = "agent"    // what the agent of one device needs, for that device
	Metrics  Role = "metrics"  // reading metrics, and nothing else
	Enrol    Role = "enrol"    // being exchanged, once, for the credential of one device's agent
)

// Roles are all roles.
var Roles = []Role{Operator, Viewer, Tool, Agent, Metrics, Enrol}

// Identity is a caller that has proved who it is.
type Identity struct {
	Role Role
	Name string // of the operator, the flow or the device
	// Via says by what it was proved: "token ID", "certificate ID" or "uid N".
	Via string
	// Credential is the id of the token or certificate; empty for a peer of a unix socket.
	Credential string
}

// String is the identity without its proof, as "agent:web-17".
func (i Identity) String() string { return string(i.Role) + ":" + i.Name }

// Proof is the form in which an identity stands in the audit record, as "agent:web-17 by certificate 3f0c...".
func (i Identity) Proof() string {
	if i.Via == "" {
		return i.String()
	}
	return i.String() + " by " + i.Via
}

var (
	// ErrToken says that a token is missing, malformed or not of this server.
	ErrToken = errors.New("auth: no valid token; pass the content of the server's token file as a bearer token, or make one: zhiyun token")
	// ErrOldToken says that a token has the form of servers before credentials were kept.
	ErrOldToken = errors.New("auth: a token that begins with zy1 never expired, and is not taken any more; make another: zhiyun token")
	// ErrExpired says that a credential was good until a moment that has passed.
	ErrExpired = errors.New("auth: the credential has expired")
	// ErrRevoked says that somebody has revoked a credential.
	ErrRevoked = errors.New("auth: the credential is revoked")
	// ErrDenied says that the caller is known and may not do this.
	ErrDenied = errors.New("auth: not allowed for this caller")
	// ErrCertificate says that a call brought no client certificate where one is demanded.
	ErrCertificate = errors.New("auth: this server wants a client certificate besides the token; give --client-cert and --client-key")
)

// Verifier knows the credentials that are in force. Its errors wrap ErrToken, ErrExpired or ErrRevoked.
type Verifier interface {
	// Token says whose token it is.
	Token(Token) (Identity, error)
	// Certificate says whose certificate it is; false for one that is signed by the CA but names nobody, as that
	// of a server.
	Certificate(*x509.Certificate) (Identity, bool, error)
}

// nameRE is what an identity may be called.
var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// ValidName says whether an identity may have the name.
func ValidName(name string) bool { return nameRE.MatchString(name) }

type identityKey struct{}

// With returns a context that carries the identity.
func With(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// From returns the identity of the caller; false where none was proved.
func From(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(identityKey{}).(Identity)
	return id, ok
}
