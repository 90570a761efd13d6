package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/certs"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// credential is what proves that this agent is its device's. It lives in a folder of mode 0700, in files of mode 0600:
//
//	draft.json   secrets that were made and not yet accepted by the server: what an agent that is killed goes on with
//	device.pem   certificate and key in one file, so that they change together
//	device.token the token, where the server signs no certificates
//	ca.pem       the CAs to trust, as the server tells them
//	device.json  what is held, written last
//
//	           draft made          server answered          files, then device.json        draft removed
//	nothing -------------> draft -------------------> held + draft --------------------> held <---+
//	                                                     |                                        |
//	                                                     +-- two thirds of its life: draft made, -+
//	                                                         Renew in place of Enrol
//
// Killed between any two steps, the next agent finds what was held before, or the draft, or both, and asks again with the
// same draft: the server gives the same request the same answer.
type credential struct {
	config Config
	dir    string
	now    func() time.Time

	// step is called before each step that leaves a trace, and may cut it off. For tests.
	step func(name string) error
}

// held is what device.json says.
type held struct {
	ID      string    `json:"id"`
	Device  string    `json:"device"`
	Form    string    `json:"form"` // "certificate" or "token"
	Trust   bool      `json:"trust,omitempty"`
	From    time.Time `json:"from"`
	Expires time.Time `json:"expires"`
}

// renewAt is two thirds into its life.
func (h held) renewAt() time.Time { return h.From.Add(h.Expires.Sub(h.From) * 2 / 3) }

// draft is what draft.json says.
type draft struct {
	Key   string `json:"key"`   // PEM
	Token string `json:"token"` // its text
}

// ErrNoCredential says that an agent has nothing to prove itself by.
var ErrNoCredential = errors.New("agent: no credential; make a token on the server, zhiyun token enrol DEVICE, and start the agent with --enrol @FILE")

func newCredential(config Config) *credential {
	return &credential{config: config, dir: config.state("credential"), now: time.Now, step: func(string) error { return nil }}
}

func (c *credential) path(name string) string { return filepath.Join(c.dir, name) }

// held is what the folder holds; nil if nothing.
func (c *credential) held() (*held, error) {
	content, err := os.ReadFile(c.path("device.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var h held
	if err == nil {
		err = json.Unmarshal(content, &h)
	}
	if err != nil {
		return nil, fmt.Errorf("agent: the credential in %s: %w; remove the folder and enrol again", c.dir, err)
	}
	if h.Device != c.config.Device {
		return nil, fmt.Errorf("agent: the credential in %s is that of device %s, not %s; use another --root, or remove the folder and enrol again", c.dir, h.Device, c.config.Device)
	}
	return &h, nil
}

// pending says whether there is a draft that the server may have accepted already. One that is what is held is not: an agent
// was killed before it removed it.
func (c *credential) pending() bool {
	_, err := os.Stat(c.path("draft.json"))
	return err == nil && !c.settled()
}

// settled removes a draft that is what is held, and says whether it was.
func (c *credential) settled() bool {
	h, err := c.held()
	if err != nil || h == nil {
		return false
	}
	content, err := os.ReadFile(c.path("draft.json"))
	if err != nil {
		return false
	}
	var d draft
	if json.Unmarshal(content, &d) != nil {
		return false
	}
	token, err := auth.ParseToken(d.Token)
	same := err == nil && token.ID == h.ID
	if key, err := certs.ParseKey([]byte(d.Key)); err == nil {
		if public, err := x509.MarshalPKIXPublicKey(&key.PublicKey); err == nil {
			sum := sha256.Sum256(public)
			same = same || auth.CredentialID(hex.EncodeToString(sum[:])) == h.ID
		}
	}
	return same && os.Remove(c.path("draft.json")) == nil
}

// asking is how the server is asked to accept a draft.
type asking func(context.Context, *controlpb.EnrolRequest) (*controlpb.EnrolResponse, error)

// exchange has the server accept the draft, and puts it in the place of what is held.
func (c *credential) exchange(ctx context.Context, ask asking) error {
	if err := c.step("draft"); err != nil {
		return err
	}
	d, key, err := c.draft()
	if err != nil {
		return err
	}
	token, err := auth.ParseToken(d.Token)
	if err != nil {
		return fmt.Errorf("agent: %s: %w", c.path("draft.json"), err)
	}
	request := &controlpb.EnrolRequest{Device: c.config.Device, TokenHash: token.Hash()}
	if strings.HasPrefix(c.config.Server, "https:") {
		if request.Csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
			return fmt.Errorf("agent: request a certificate: %w", err)
		}
	}
	if err := c.step("ask"); err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answer, err := ask(bound, request)
	if err == nil {
		err = c.step("answer")
	}
	if err != nil {
		return err
	}
	return c.keep(d, token, answer)
}

// draft reads the draft, or makes one.
func (c *credential) draft() (d draft, key *ecdsa.PrivateKey, err error) {
	c.settled()
	content, err := os.ReadFile(c.path("draft.json"))
	if err == nil {
		if err = json.Unmarshal(content, &d); err == nil {
			key, err = certs.ParseKey([]byte(d.Key))
		}
		if err != nil {
			err = fmt.Errorf("agent: %s: %w; remove it", c.path("draft.json"), err)
		}
		return d, key, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return d, nil, fmt.Errorf("agent: %w", err)
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return d, nil, fmt.Errorf("agent: make a key: %w", err)
	}
	pem, err := certs.KeyPEM(key)
	if err != nil {
		return d, nil, err
	}
	d = draft{Key: string(pem), Token: auth.NewToken().String()}
	if content, err = json.Marshal(d); err != nil {
		return d, nil, fmt.Errorf("agent: %w", err)
	}
	if err := auth.WriteSecret(c.path("draft.json"), content); err != nil {
		return d, nil, fmt.Errorf("agent: keep the draft of a credential: %w", err)
	}
	return d, key, nil
}

// keep writes what the server has accepted. What is replaced is replaced whole, file by file, device.json last.
func (c *credential) keep(d draft, token auth.Token, answer *controlpb.EnrolResponse) error {
	h := held{ID: answer.Id, Device: c.config.Device, Form: "token", Trust: len(answer.Trust) > 0, From: c.now().UTC(), Expires: answer.Expires.AsTime()}
	type file struct {
		name    string
		content []byte
	}
	var files []file
	if h.Trust {
		files = append(files, file{"ca.pem", answer.Trust})
	}
	if len(answer.Certificate) > 0 {
		h.Form = "certificate"
		both := append(append([]byte{}, answer.Certificate...), d.Key...)
		if _, err := tls.X509KeyPair(both, both); err != nil {
			return fmt.Errorf("agent: the certificate that the server signed: %w", err)
		}
		files = append(files, file{"device.pem", both})
	} else {
		files = append(files, file{"device.token", []byte(token.String() + "\n")})
	}
	about, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	for _, f := range append(files, file{"device.json", append(about, '\n')}) {
		if err := c.step(f.name); err != nil {
			return err
		}
		if err := auth.WriteSecret(c.path(f.name), f.content); err != nil {
			return fmt.Errorf("agent: keep the credential: %w", err)
		}
	}
	if err := c.step("done"); err != nil {
		return err
	}
	if err := os.Remove(c.path("draft.json")); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	c.config.Logger.Info("the device has a new credential", "id", h.ID, "form", h.Form, "expires", h.Expires)
	return nil
}

// files are those by which the agent, and the tools of its device, prove themselves.
func (c *credential) files() (tokenFile string, files transport.ClientFiles, err error) {
	h, err := c.held()
	if err != nil {
		return "", files, err
	}
	files = c.config.TLS
	if h == nil || c.config.TokenFile != "" {
		return c.config.TokenFile, files, nil
	}
	if h.Trust {
		files.CA = c.path("ca.pem")
	}
	if h.Form == "token" {
		return c.path("device.token"), files, nil
	}
	files.Cert, files.Key = c.path("device.pem"), c.path("device.pem")
	return "", files, nil
}

// dial is how the agent connects: all of it is read from the files again when they change.
func (c *credential) dial() (transport.DialConfig, error) {
	token, files, err := c.files()
	if err != nil {
		return transport.DialConfig{}, err
	}
	secure, err := files.TLS()
	if err != nil {
		return transport.DialConfig{}, fmt.Errorf("agent: %w", err)
	}
	dial := transport.DialConfig{Target: c.config.Server, TLS: secure}
	if token != "" {
		dial.Token = "@" + token
	}
	return dial, nil
}
