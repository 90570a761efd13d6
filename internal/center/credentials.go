package center

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Credential is what proves one identity: a token, or a certificate. The secret itself is never kept, only its hash; the
// id is the beginning of that.
//
//	              Issue, Enrol, Renew                      Expires
//	(none) --------------------------------> in force ----------------> ended
//	                                          |   | Enrol                 ^
//	                                   Revoke |   +------> used up -------+  (role enrol alone; the same exchange may be repeated)
//	                                          +----------> revoked
type Credential struct {
	ID      string    `json:"id"`
	Role    auth.Role `json:"role"`
	Name    string    `json:"name"` // of the operator or the device
	Form    Form      `json:"form"`
	Hash    string    `json:"hash"` // hex SHA-256 of the token's secret, or of the certificate's public key
	Created time.Time `json:"created"`
	By      string    `json:"by"` // who made it, or the credential that it was obtained with
	Reason  string    `json:"reason,omitempty"`
	Expires time.Time `json:"expires"`
	Used    *Use      `json:"used,omitempty"`
	Revoked *Revoked  `json:"revoked,omitempty"`
}

// Form is what a credential looks like to who holds it.
type Form string

const (
	FormToken       Form = "token"
	FormCertificate Form = "certificate"
)

// Use says when a token of the role enrol was exchanged, and for what.
type Use struct {
	At         time.Time `json:"at"`
	Request    string    `json:"request"` // hash of the request: the same one may come again
	Credential string    `json:"credential"`
}

// Revoked says who ended a credential before its time.
type Revoked struct {
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
}

// Ended says whether the credential is not in force any more.
func (c Credential) Ended(now time.Time) bool {
	return c.Revoked != nil || c.Used != nil || !now.Before(c.Expires)
}

// Public is the credential for people to see: without the hash.
func (c Credential) Public() Credential {
	c.Hash = ""
	return c
}

func (c Credential) identity() auth.Identity {
	return auth.Identity{Role: c.Role, Name: c.Name, Via: string(c.Form) + " " + c.ID, Credential: c.ID}
}

var (
	// ErrUsed says that a token of the role enrol was exchanged before, for something else.
	ErrUsed = errors.New("center: the enrolment token is used up; make another: zhiyun token enrol DEVICE")
	// ErrOtherDevice says that a token of the role enrol is for another device than the one that presents it.
	ErrOtherDevice = errors.New("center: the enrolment token is for another device")
)

// MaxTTL bounds the life of any credential.
const MaxTTL = 400 * 24 * time.Hour

// keepCredentials is how long a credential is listed after its end.
const keepCredentials = 30 * 24 * time.Hour

// Credentials keeps who is who. It is an auth.Verifier that answers from memory: it knows what this process wrote at
// once, and what others wrote within the delay of one watch, while Run runs.
type Credentials struct {
	shelf shelf[Credential]
	now   func() time.Time

	mu   sync.RWMutex
	view map[string]kept[Credential] // guarded by mu; by id
}

var _ auth.Verifier = (*Credentials)(nil)

// IssueIn says what token to make.
type IssueIn struct {
	Role   auth.Role
	Name   string
	TTL    time.Duration // 1 s to MaxTTL
	By     string        // who asks for it
	Reason string
}

// Issue makes a token. What it returns is the only copy of its secret.
func (c *Credentials) Issue(ctx context.Context, in IssueIn) (auth.Token, Credential, error) {
	var faults []error
	if !slices.Contains(auth.Roles, in.Role) {
		faults = append(faults, fault("role", in.Role, "give one of %v", auth.Roles))
	}
	if !auth.ValidName(in.Name) {
		faults = append(faults, fault("name", in.Name, "give a name of letters, digits, '.', '_' and '-', at most 128 long, as in web-17"))
	}
	if err := errors.Join(append(faults, checkTTL(in.TTL), checkActor(in.By))...); err != nil {
		return auth.Token{}, Credential{}, err
	}
	token := auth.NewToken()
	made, err := c.put(ctx, Credential{
		ID: token.ID, Role: in.Role, Name: in.Name, Form: FormToken, Hash: token.Hash(),
		By: in.By, Reason: in.Reason, Created: c.now().UTC(), Expires: c.now().Add(in.TTL).UTC(),
	})
	if err != nil {
		return auth.Token{}, Credential{}, err
	}
	return token, made, nil
}

func checkTTL(ttl time.Duration) error {
	if ttl < time.Second || ttl > MaxTTL {
		return fault("ttl", ttl, "give 1s to %v", MaxTTL)
	}
	return nil
}

// put writes a credential that is not there yet; the same one again changes nothing but its expiry, which is the later.
func (c *Credentials) put(ctx context.Context, fresh Credential) (Credential, error) {
	done, _, err := c.shelf.change(ctx, fresh.ID, func(old Credential, exists bool) (Credential, verdict, error) {
		return c.settle(old, exists, fresh)
	})
	if err != nil {
		return Credential{}, err
	}
	c.learn(done)
	return done.value, nil
}

// settle decides between a credential that stands and one that is to be made of the same secret.
func (c *Credentials) settle(old Credential, exists bool, fresh Credential) (Credential, verdict, error) {
	switch {
	case !exists:
		return fresh, write, nil
	case old.Hash != fresh.Hash || old.Role != fresh.Role || old.Name != fresh.Name || old.Form != fresh.Form:
		return old, keep, fmt.Errorf("%w: credential %s; make another secret", ErrTaken, fresh.ID)
	case old.Revoked != nil:
		return old, keep, fmt.Errorf("%w: %s", auth.ErrRevoked, old.ID)
	case !fresh.Expires.After(old.Expires):
		return old, keep, nil
	}
	old.Expires = fresh.Expires
	return old, write, nil
}

// EnrolIn is a device's request for a credential of its own. It makes the secret itself: Hash is that of the public key
// of the certificate it asks for, or of the token's secret.
type EnrolIn struct {
	Device string
	Form   Form
	Hash   string // 64 hex digits
	TTL    time.Duration
}

func (in EnrolIn) check() error {
	var faults []error
	if !auth.ValidName(in.Device) {
		faults = append(faults, fault("device", in.Device, "name the device, as in web-17"))
	}
	if hash, err := hex.DecodeString(in.Hash); err != nil || len(hash) != sha256.Size {
		faults = append(faults, fault("hash", in.Hash, "give the hex SHA-256 of the secret"))
	}
	return errors.Join(append(faults, checkTTL(in.TTL))...)
}

func (in EnrolIn) credential(now time.Time, by string) Credential {
	return Credential{
		ID: auth.CredentialID(in.Hash), Role: auth.Agent, Name: in.Device, Form: in.Form, Hash: in.Hash,
		By: by, Created: now.UTC(), Expires: now.Add(in.TTL).UTC(),
	}
}

// Enrol exchanges the token with the given id for the credential of a device's agent. Token and credential change in one
// commit: the token is used up if and only if the credential exists. The same request again has the same result, so
// that a device that was cut off may ask again; any other is ErrUsed.
func (c *Credentials) Enrol(ctx context.Context, id string, in EnrolIn) (Credential, error) {
	if err := in.check(); err != nil {
		return Credential{}, err
	}
	for range 32 {
		token, err := c.shelf.must(ctx, id)
		if err != nil {
			return Credential{}, err
		}
		c.learn(token)
		switch t := token.value; {
		case t.Role != auth.Enrol:
			return Credential{}, fmt.Errorf("%w: token %s is of the role %s, not enrol", auth.ErrDenied, id, t.Role)
		case t.Name != in.Device:
			return Credential{}, fmt.Errorf("%w: token %s is for %s, and %s presents it; make one for %s: zhiyun token enrol %s", ErrOtherDevice, id, t.Name, in.Device, in.Device, in.Device)
		case t.Revoked != nil || !c.now().Before(t.Expires):
			return Credential{}, c.standing(t)
		case t.Used != nil && t.Used.Request != in.Hash:
			return Credential{}, fmt.Errorf("%w (token %s, at %s, for credential %s)", ErrUsed, id, t.Used.At.Format(time.RFC3339), t.Used.Credential)
		}
		made, again, err := c.exchange(ctx, token, in)
		if err == nil || !again {
			return made, err
		}
	}
	return Credential{}, fmt.Errorf("%w: enrolment token %s", ErrContended, id)
}

// exchange commits both sides. again is true when somebody else wrote one of them meanwhile.
func (c *Credentials) exchange(ctx context.Context, token kept[Credential], in EnrolIn) (_ Credential, again bool, _ error) {
	fresh := in.credential(c.now(), "token "+token.value.ID)
	old, exists, err := c.shelf.get(ctx, fresh.ID)
	if err != nil {
		return Credential{}, false, err
	}
	next, what, err := c.settle(old.value, exists, fresh)
	if err != nil {
		return Credential{}, false, err
	}
	if token.value.Used != nil && what == keep {
		return next, false, nil
	}
	used := token.value
	used.Used = &Use{At: c.now().UTC(), Request: in.Hash, Credential: fresh.ID}
	if token.value.Used != nil {
		used.Used = token.value.Used
	}
	ops := make([]store.Op, 0, 2)
	for _, one := range []struct {
		value    Credential
		revision int64
	}{{used, token.revision}, {next, old.revision}} {
		encoded, err := json.Marshal(one.value)
		if err != nil {
			return Credential{}, false, fmt.Errorf("center: encode credential %s: %w", one.value.ID, err)
		}
		ops = append(ops, store.Put(c.shelf.prefix+one.value.ID, encoded).At(one.revision))
	}
	revision, err := c.shelf.store.Commit(ctx, ops...)
	if errors.Is(err, store.ErrConflict) {
		return Credential{}, true, err
	}
	if err != nil {
		return Credential{}, false, fmt.Errorf("center: exchange token %s: %w", token.value.ID, err)
	}
	c.learn(kept[Credential]{used.ID, used, revision}, kept[Credential]{next.ID, next, revision})
	return next, false, nil
}

// Renew gives the agent that calls a new credential. The one that it calls with stays good for the rest of its life: an
// agent that is killed before it has the answer goes on with it, and asks again.
func (c *Credentials) Renew(ctx context.Context, who auth.Identity, in EnrolIn) (Credential, error) {
	if err := in.check(); err != nil {
		return Credential{}, err
	}
	if who.Role != auth.Agent || who.Name != in.Device {
		return Credential{}, fmt.Errorf("%w: %s asks for a credential of %s", ErrOtherDevice, who, in.Device)
	}
	for range 32 {
		made, again, err := c.renew(ctx, who, in)
		if err == nil || !again {
			return made, err
		}
	}
	return Credential{}, fmt.Errorf("%w: credential %s", ErrContended, who.Credential)
}

// renew commits the new credential if the one that it is asked for with is still in force at that moment: a revocation that
// comes at the same time, or that this process has not heard of yet, comes first, or else finds the new one. again is true when
// somebody else wrote one of them meanwhile.
func (c *Credentials) renew(ctx context.Context, who auth.Identity, in EnrolIn) (_ Credential, again bool, _ error) {
	by, err := c.shelf.must(ctx, who.Credential)
	if err != nil {
		return Credential{}, false, err
	}
	c.learn(by)
	if err := c.standing(by.value); err != nil {
		return Credential{}, false, err
	}
	fresh := in.credential(c.now(), who.Via)
	old, exists, err := c.shelf.get(ctx, fresh.ID)
	if err != nil {
		return Credential{}, false, err
	}
	next, what, err := c.settle(old.value, exists, fresh)
	if err != nil || what == keep {
		return next, false, err
	}
	encoded, err := json.Marshal(next)
	if err != nil {
		return Credential{}, false, fmt.Errorf("center: encode credential %s: %w", next.ID, err)
	}
	ops := []store.Op{store.Put(c.shelf.prefix+next.ID, encoded).At(old.revision)}
	if by.key != next.ID {
		ops = append(ops, store.Check(c.shelf.prefix+by.key, by.revision))
	}
	revision, err := c.shelf.store.Commit(ctx, ops...)
	if errors.Is(err, store.ErrConflict) {
		return Credential{}, true, err
	}
	if err != nil {
		return Credential{}, false, fmt.Errorf("center: renew credential %s: %w", by.key, err)
	}
	c.learn(kept[Credential]{next.ID, next, revision})
	return next, false, nil
}

// CredentialFilter picks credentials; empty fields match all.
type CredentialFilter struct {
	Role auth.Role
	Name string
	All  bool // those that have ended, too
}

// List returns credentials in order of their ids, without their hashes.
func (c *Credentials) List(ctx context.Context, f CredentialFilter, page Page) ([]Credential, string, error) {
	if f.Role != "" && !slices.Contains(auth.Roles, f.Role) {
		return nil, "", fault("role", f.Role, "give one of %v", auth.Roles)
	}
	all, err := c.shelf.list(ctx, "")
	if err != nil {
		return nil, "", err
	}
	out, next, err := cut(all, page, func(v Credential) bool {
		return (f.Role == "" || f.Role == v.Role) && (f.Name == "" || f.Name == v.Name) && (f.All || !v.Ended(c.now()))
	})
	for i := range out {
		out[i] = out[i].Public()
	}
	return out, next, err
}

// Revoke ends a credential for good. To do it again changes nothing.
func (c *Credentials) Revoke(ctx context.Context, id, actor, reason string) (Credential, error) {
	if err := checkActor(actor); err != nil {
		return Credential{}, err
	}
	done, _, err := c.shelf.change(ctx, id, func(old Credential, exists bool) (Credential, verdict, error) {
		switch {
		case !exists:
			return old, keep, fmt.Errorf("%w: credential %q; zhiyun token list has them", ErrNotFound, id)
		case old.Revoked != nil:
			return old, keep, nil
		}
		old.Revoked = &Revoked{At: c.now().UTC(), By: actor, Reason: reason}
		return old, write, nil
	})
	if err != nil {
		return Credential{}, err
	}
	c.learn(done)
	return done.value.Public(), nil
}

// RevokeAll ends every credential of an identity, those that are made while it does among them, and returns those that it ended.
func (c *Credentials) RevokeAll(ctx context.Context, role auth.Role, name, actor, reason string) ([]Credential, error) {
	var out []Credential
	for {
		all, err := c.shelf.list(ctx, "")
		if err != nil {
			return out, err
		}
		before := len(out)
		for _, one := range all {
			if one.value.Role != role || one.value.Name != name || one.value.Ended(c.now()) {
				continue
			}
			ended, err := c.Revoke(ctx, one.key, actor, reason)
			if err != nil {
				return out, err
			}
			out = append(out, ended)
		}
		if len(out) == before {
			break
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: %s:%s has no credential in force", ErrNotFound, role, name)
	}
	return out, nil
}

// Token implements auth.Verifier. A used-up token of the role enrol still says whose it is: Enrol knows what it may.
func (c *Credentials) Token(token auth.Token) (auth.Identity, error) {
	one, ok := c.known(token.ID)
	if !ok || one.Form != FormToken || !token.Matches(one.Hash) {
		return auth.Identity{}, auth.ErrToken
	}
	return one.identity(), c.standing(one)
}

// Certificate implements auth.Verifier. That the certificate is signed by a CA of this server was checked with the
// handshake, as was that the caller has its key.
func (c *Credentials) Certificate(certificate *x509.Certificate) (auth.Identity, bool, error) {
	hash := auth.CertificateHash(certificate)
	one, ok := c.known(auth.CredentialID(hash))
	if !ok || one.Form != FormCertificate || one.Hash != hash {
		return auth.Identity{}, false, nil
	}
	return one.identity(), true, c.standing(one)
}

// standing says by name why a credential is not in force; nil if it is.
func (c *Credentials) standing(one Credential) error {
	switch {
	case one.Revoked != nil:
		return fmt.Errorf("%w: %s %s of %s:%s, at %s by %s", auth.ErrRevoked, one.Form, one.ID, one.Role, one.Name, one.Revoked.At.Format(time.RFC3339), one.Revoked.By)
	case !c.now().Before(one.Expires):
		return fmt.Errorf("%w: %s %s of %s:%s, at %s; make another: zhiyun token", auth.ErrExpired, one.Form, one.ID, one.Role, one.Name, one.Expires.Format(time.RFC3339))
	}
	return nil
}

func (c *Credentials) known(id string) (Credential, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	one, ok := c.view[id]
	return one.value, ok
}

// Known returns all credentials from memory, without their hashes.
func (c *Credentials) Known() []Credential {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := make([]Credential, 0, len(c.view))
	for _, one := range c.view {
		out = append(out, one.value.Public())
	}
	slices.SortFunc(out, func(a, b Credential) int { return a.Created.Compare(b.Created) })
	return out
}

// learn takes credentials in, each if it is newer than what is known of it.
func (c *Credentials) learn(all ...kept[Credential]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range all {
		if old, ok := c.view[one.key]; !ok || old.revision < one.revision {
			c.view[one.key] = one
		}
	}
}

// follow keeps the view current until ctx ends or the store fails; ready is called once it is.
func (c *Credentials) follow(ctx context.Context, ready func()) error {
	records, revision, err := c.shelf.store.List(ctx, c.shelf.prefix)
	if err != nil {
		return fmt.Errorf("center: list credentials: %w", err)
	}
	listed := make(map[string]bool, len(records))
	for _, record := range records {
		one, err := c.shelf.decode(record)
		if err != nil {
			return err
		}
		listed[one.key] = true
		c.learn(one)
	}
	c.mu.Lock()
	for id, one := range c.view {
		if !listed[id] && one.revision <= revision {
			delete(c.view, id)
		}
	}
	c.mu.Unlock()
	ready()
	for event, err := range c.shelf.store.Watch(ctx, c.shelf.prefix, revision) {
		if err != nil {
			return err
		}
		for _, record := range event.Puts {
			one, err := c.shelf.decode(record)
			if err != nil {
				return err
			}
			c.learn(one)
		}
		c.mu.Lock()
		for _, key := range event.Deletes {
			delete(c.view, key[len(c.shelf.prefix):])
		}
		c.mu.Unlock()
	}
	return ctx.Err()
}

// sweep forgets what ended long ago. A revoked credential is kept until it would have expired, too.
func (c *Credentials) sweep(ctx context.Context) error {
	return sweep(ctx, c.shelf, func(one Credential) bool { return c.now().Sub(one.Expires) > keepCredentials })
}
