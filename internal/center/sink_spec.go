package center

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Kinds of a SinkSpec.
const (
	KindWebhook      = "webhook"
	KindSMTP         = "smtp"
	KindAlertmanager = "alertmanager"
)

// SinkSpec is a sink that operators have set up. Credentials are files on the server: neither the record nor any log holds one.
type SinkSpec struct {
	Name string `json:"name"`
	Kind string `json:"kind"` // webhook, smtp, alertmanager
	URL  string `json:"url,omitempty"`
	// Of smtp.
	Addr         string   `json:"addr,omitempty"` // host:port
	From         string   `json:"from,omitempty"`
	To           []string `json:"to,omitempty"`
	Username     string   `json:"username,omitempty"`
	PasswordFile string   `json:"password_file,omitempty"` // absolute, on the server

	Actor string    `json:"actor"`
	At    time.Time `json:"at"`
}

func (s SinkSpec) check() error {
	if err := firstOf(checkName("sink", s.Name), checkActor(s.Actor)); err != nil {
		return err
	}
	switch s.Kind {
	case KindWebhook, KindAlertmanager:
		return checkURL("url", s.URL)
	case KindSMTP:
		if host, port, err := net.SplitHostPort(s.Addr); err != nil || host == "" || port == "" {
			return fault("addr", s.Addr, "give host:port, as in mail.example:587")
		}
		if len(s.To) == 0 || len(s.To) > 64 {
			return fault("to", len(s.To), "give 1 to 64 addresses")
		}
		for i, address := range append([]string{s.From}, s.To...) {
			field := "to"
			if i == 0 {
				field = "from"
			}
			if parsed, err := mail.ParseAddress(address); err != nil || parsed.Address != address || strings.ContainsAny(address, "\r\n") {
				return fault(field, address, "give an address, as in ops@example.org")
			}
		}
		if (s.Username == "") != (s.PasswordFile == "") {
			return fault("username", s.Username, "give both username and password_file, or neither")
		}
		if s.PasswordFile != "" && !filepath.IsAbs(s.PasswordFile) {
			return fault("password_file", s.PasswordFile, "give the absolute path of a file on the server")
		}
		return nil
	}
	return fault("kind", s.Kind, "give webhook, smtp or alertmanager")
}

// build makes the sink, which calls through client or dial.
func (s SinkSpec) build(client *http.Client, r reach) (Sink, error) {
	switch s.Kind {
	case KindWebhook:
		return NewWebhook(s.Name, s.URL, client)
	case KindAlertmanager:
		manager, err := NewAlertmanager(s.URL, client)
		return renamed{manager, s.Name}, err
	}
	return NewSMTP(SMTPConfig{Name: s.Name, Addr: s.Addr, From: s.From, To: s.To, Username: s.Username, Password: s.password, Dial: r.dial})
}

// password reads the file anew for each mail: it may be renewed.
func (s SinkSpec) password() (string, error) {
	file, err := os.Open(s.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("center: password of sink %s: %w", s.Name, err)
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("center: password of sink %s: %s can be read by others than its owner; chmod 600", s.Name, s.PasswordFile)
	}
	content := make([]byte, 4096)
	n, err := file.Read(content)
	if err != nil {
		return "", fmt.Errorf("center: password of sink %s: %w", s.Name, err)
	}
	return strings.TrimRight(string(content[:n]), "\r\n"), nil
}

// renamed is a sink by another name.
type renamed struct {
	Sink
	name string
}

func (r renamed) Name() string { return r.name }

// SetSink keeps a sink, in place of one of its name.
func (n *Notify) SetSink(ctx context.Context, s SinkSpec) (SinkSpec, error) {
	if err := s.check(); err != nil {
		return SinkSpec{}, err
	}
	for _, built := range n.sinks {
		if built.Name() == s.Name {
			return SinkSpec{}, fmt.Errorf("%w: the server was started with a sink %q", ErrTaken, s.Name)
		}
	}
	s.At = n.now().UTC()
	done, _, err := n.specs.change(ctx, s.Name, func(SinkSpec, bool) (SinkSpec, verdict, error) { return s, write, nil })
	return done.value, err
}

// Sinks lists the sinks that were set up, by name.
func (n *Notify) Sinks(ctx context.Context, page Page) ([]SinkSpec, string, error) {
	list, err := n.specs.list(ctx, "")
	if err != nil {
		return nil, "", err
	}
	return cut(list, page, func(SinkSpec) bool { return true })
}

// RemoveSink removes a sink that no route uses. ErrNotFound if there is none.
func (n *Notify) RemoveSink(ctx context.Context, name string) error {
	return n.removed(ctx, "sink", name, func(r Route) bool {
		for _, sink := range r.Sinks {
			if sink == name {
				return true
			}
		}
		return false
	}, func() error {
		_, was, err := n.specs.change(ctx, name, func(s SinkSpec, _ bool) (SinkSpec, verdict, error) { return s, remove, nil })
		return absent(err, was, "sink", name)
	})
}

// allSinks returns the sinks by name: those that the server was started with, and those that were set up.
func (n *Notify) allSinks(ctx context.Context) (map[string]Sink, error) {
	out := make(map[string]Sink, len(n.sinks))
	for _, sink := range n.sinks {
		out[sink.Name()] = sink
	}
	specs, err := n.specs.list(ctx, "")
	if err != nil {
		return nil, err
	}
	var faults []error
	for _, spec := range specs {
		sink, err := spec.value.build(n.client, n.reach)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		out[spec.key] = sink
	}
	return out, errors.Join(faults...)
}
