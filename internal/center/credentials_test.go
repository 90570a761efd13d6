package center_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// desk is a store of credentials with a clock that the test moves.
type desk struct {
	*center.Credentials
	now time.Time
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{now: time.Unix(1_000_000, 0)}
	c, err := center.New(center.Config{Store: store.NewMemory(), Dir: filepath.Join(t.TempDir(), "b"), Now: func() time.Time { return d.now }})
	if err != nil {
		t.Fatal(err)
	}
	d.Credentials = c.Credentials
	return d
}

func (d *desk) issue(t *testing.T, role auth.Role, name string, ttl time.Duration) auth.Token {
	t.Helper()
	token, _, err := d.Issue(t.Context(), center.IssueIn{Role: role, Name: name, TTL: ttl, By: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func request(device string) center.EnrolIn {
	return center.EnrolIn{Device: device, Form: center.FormToken, Hash: auth.NewToken().Hash(), TTL: time.Hour}
}

func TestTokensAreInForceUntilTheirEnd(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	token := d.issue(t, auth.Operator, "li", time.Hour)
	id, err := d.Token(token)
	if err != nil || id.String() != "operator:li" || id.Proof() != "operator:li by token "+token.ID {
		t.Fatalf("the token is %v: %v", id.Proof(), err)
	}
	if _, err := d.Token(auth.NewToken()); !errors.Is(err, auth.ErrToken) {
		t.Errorf("a token of nobody: %v", err)
	}
	d.now = d.now.Add(time.Hour)
	if _, err := d.Token(token); !errors.Is(err, auth.ErrExpired) {
		t.Errorf("after its time: %v", err)
	}
	again := d.issue(t, auth.Operator, "li", time.Hour)
	if _, err := d.Revoke(t.Context(), again.ID, "wang", "lost"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Token(again); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("after it was revoked: %v", err)
	}
	if _, err := d.Revoke(t.Context(), "nothing", "wang", ""); !errors.Is(err, center.ErrNotFound) {
		t.Errorf("revoke what is not there: %v", err)
	}
	all, _, err := d.List(t.Context(), center.CredentialFilter{All: true}, center.Page{})
	if err != nil || len(all) != 2 {
		t.Fatalf("listed %v: %v", all, err)
	}
	for _, one := range all {
		if one.Hash != "" {
			t.Error("a listing shows the hash")
		}
	}
	if all, _, _ := d.List(t.Context(), center.CredentialFilter{}, center.Page{}); len(all) != 0 {
		t.Errorf("in force are %v", all)
	}
	for what, in := range map[string]center.IssueIn{
		"a role of no kind": {Role: "root", Name: "x", TTL: time.Hour, By: "t"}, "no name": {Role: auth.Operator, TTL: time.Hour, By: "t"},
		"no time": {Role: auth.Operator, Name: "x", By: "t"}, "for ever": {Role: auth.Operator, Name: "x", TTL: 500 * 24 * time.Hour, By: "t"},
	} {
		if _, _, err := d.Issue(t.Context(), in); !errors.Is(err, center.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// However many present one token at once, it becomes one credential; who asks again with the same request gets the same.
func TestAnEnrolmentTokenIsExchangedOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	token := d.issue(t, auth.Enrol, "d1", time.Hour)
	type result struct {
		in   center.EnrolIn
		made center.Credential
		err  error
	}
	results := make([]result, 40)
	var wait sync.WaitGroup
	for i := range results {
		wait.Go(func() {
			in := request("d1")
			made, err := d.Enrol(context.Background(), token.ID, in)
			results[i] = result{in, made, err}
		})
	}
	wait.Wait()
	var won []result
	for _, r := range results {
		switch {
		case r.err == nil:
			won = append(won, r)
		case !errors.Is(r.err, center.ErrUsed):
			t.Errorf("refused for another reason: %v", r.err)
		}
	}
	if len(won) != 1 {
		t.Fatalf("%d of %d exchanges succeeded, want 1", len(won), len(results))
	}
	again, err := d.Enrol(t.Context(), token.ID, won[0].in)
	if err != nil || again.ID != won[0].made.ID {
		t.Errorf("the same request again: %v, %v", again, err)
	}
	all, _, err := d.List(t.Context(), center.CredentialFilter{Role: auth.Agent}, center.Page{})
	if err != nil || len(all) != 1 {
		t.Errorf("there are %d credentials of agents, want 1: %v", len(all), err)
	}
	d.now = d.now.Add(2 * time.Hour)
	if _, err := d.Enrol(t.Context(), token.ID, won[0].in); !errors.Is(err, auth.ErrExpired) {
		t.Errorf("the same request after the token's end: %v", err)
	}
}

func TestWhatMayNotBeExchanged(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	enrol := d.issue(t, auth.Enrol, "d1", time.Hour)
	operator := d.issue(t, auth.Operator, "li", time.Hour)
	dead := d.issue(t, auth.Enrol, "d1", time.Hour)
	if _, err := d.Revoke(t.Context(), dead.ID, "wang", ""); err != nil {
		t.Fatal(err)
	}
	bad := request("d1")
	bad.Hash = "abc"
	theirs := request("d1")
	theirs.Hash = operator.Hash() // the secret of somebody else, as who has seen the hash might try
	for what, c := range map[string]struct {
		id   string
		in   center.EnrolIn
		want error
	}{
		"another device":          {enrol.ID, request("d2"), center.ErrOtherDevice},
		"another role":            {operator.ID, request("li"), auth.ErrDenied},
		"revoked":                 {dead.ID, request("d1"), auth.ErrRevoked},
		"nobody's":                {auth.NewToken().ID, request("d1"), center.ErrNotFound},
		"a bad hash":              {enrol.ID, bad, center.ErrInvalid},
		"the hash of an operator": {enrol.ID, theirs, center.ErrTaken},
	} {
		if _, err := d.Enrol(t.Context(), c.id, c.in); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	if _, err := d.Enrol(t.Context(), enrol.ID, request("d1")); err != nil {
		t.Errorf("what was refused has used the token up: %v", err)
	}
	for what, who := range map[string]auth.Identity{
		"another device": {Role: auth.Agent, Name: "d2", Credential: "x"}, "another role": {Role: auth.Operator, Name: "d1", Credential: "x"},
	} {
		if _, err := d.Renew(t.Context(), who, request("d1")); !errors.Is(err, center.ErrOtherDevice) {
			t.Errorf("renewed by %s: %v", what, err)
		}
	}
}

// Who renews while its credential is revoked, by a server that has not heard of it yet or by the same one, keeps nothing.
func TestRevokedIsNotRenewed(t *testing.T) {
	t.Parallel()
	s := &interrupted{Store: store.NewMemory()}
	var sides []*center.Credentials
	for i := range 2 {
		c, err := center.New(center.Config{Store: s, Dir: filepath.Join(t.TempDir(), fmt.Sprint(i))})
		if err != nil {
			t.Fatal(err)
		}
		sides = append(sides, c.Credentials)
	}
	enrolled := func(device string) auth.Identity {
		token, _, err := sides[0].Issue(t.Context(), center.IssueIn{Role: auth.Agent, Name: device, TTL: time.Hour, By: "test"})
		if err != nil {
			t.Fatal(err)
		}
		who, err := sides[0].Token(token)
		if err != nil {
			t.Fatal(err)
		}
		return who
	}
	revoke := func(device string) {
		if _, err := sides[1].RevokeAll(t.Context(), auth.Agent, device, "wang", "stolen"); err != nil {
			t.Error(err)
		}
	}
	who := enrolled("d1")
	revoke("d1")
	if _, err := sides[0].Renew(t.Context(), who, request("d1")); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("after it was revoked elsewhere: %v", err)
	}
	who = enrolled("d2")
	s.before = func() { revoke("d2") }
	if _, err := sides[0].Renew(t.Context(), who, request("d2")); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("while it is revoked: %v", err)
	}
	who = enrolled("d3")
	again := request("d3")
	s.before = func() { // somebody renews after the list, and before what is listed is revoked
		if _, err := sides[0].Renew(t.Context(), who, again); err != nil {
			t.Error(err)
		}
	}
	revoke("d3")
	left, _, err := sides[0].List(t.Context(), center.CredentialFilter{Role: auth.Agent}, center.Page{})
	if err != nil || len(left) != 0 {
		t.Errorf("in force after all was revoked: %v, %v", left, err)
	}
}

// interrupted is a store in which something comes before the next commit.
type interrupted struct {
	store.Store
	before func()
}

func (s *interrupted) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	if before := s.before; before != nil {
		s.before = nil
		before()
	}
	return s.Store.Commit(ctx, ops...)
}

// What others write is known after the delay of a watch, also what was written before Run.
func TestCredentialsAreFollowed(t *testing.T) {
	t.Parallel()
	s := store.NewMemory()
	var sides []*center.Centers
	for i := range 2 {
		c, err := center.New(center.Config{Store: s, Dir: filepath.Join(t.TempDir(), fmt.Sprint(i))})
		if err != nil {
			t.Fatal(err)
		}
		sides = append(sides, c)
	}
	issue := func() auth.Token {
		token, _, err := sides[0].Credentials.Issue(t.Context(), center.IssueIn{Role: auth.Viewer, Name: "v", TTL: time.Hour, By: "test"})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	before := issue()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sides[1].Run(ctx) }()
	defer func() { cancel(); <-done }()
	if err := sides[1].Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := sides[1].Credentials.Token(before); err != nil {
		t.Errorf("what was there before: %v", err)
	}
	after := issue()
	await := func(what string, token auth.Token, want error) {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		limit := time.After(time.Minute)
		for {
			if _, err := sides[1].Credentials.Token(token); errors.Is(err, want) {
				return
			}
			select {
			case <-tick.C:
			case <-limit:
				t.Fatalf("%s: not within a minute", what)
			}
		}
	}
	await("issued elsewhere", after, nil)
	if _, err := sides[0].Credentials.Revoke(t.Context(), before.ID, "wang", ""); err != nil {
		t.Fatal(err)
	}
	await("revoked elsewhere", before, auth.ErrRevoked)
}

func BenchmarkVerifyToken(b *testing.B) {
	c, err := center.New(center.Config{Store: store.NewMemory(), Dir: filepath.Join(b.TempDir(), "b")})
	if err != nil {
		b.Fatal(err)
	}
	var text string
	for range 1000 {
		token, _, err := c.Credentials.Issue(b.Context(), center.IssueIn{Role: auth.Agent, Name: "d1", TTL: time.Hour, By: "test"})
		if err != nil {
			b.Fatal(err)
		}
		text = token.String()
	}
	b.ReportAllocs()
	for b.Loop() {
		token, err := auth.ParseToken(text)
		if err == nil {
			_, err = c.Credentials.Token(token)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
