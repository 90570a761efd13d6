package center

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/smtp"
	"strings"
	"time"
)

// SMTPConfig says how mails are sent.
type SMTPConfig struct {
	Name string   // of the sink. Required.
	Addr string   // host:port of the mail server. Required.
	From string   // Required.
	To   []string // Required.
	// Username and Password log in, over TLS or to this machine only. Password is asked for each mail. Default: no login.
	Username string
	Password func() (string, error)
	// TLS is used when the server offers STARTTLS. Default: the system's roots, and the server's name.
	TLS *tls.Config
	// Dial connects to Addr. Default: a dialer that goes to no link-local address.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// SMTP is a sink that sends mails.
type SMTP struct{ config SMTPConfig }

// NewSMTP checks the config.
func NewSMTP(config SMTPConfig) (*SMTP, error) {
	spec := SinkSpec{Name: config.Name, Kind: KindSMTP, Addr: config.Addr, From: config.From, To: config.To, Actor: "server"}
	if err := spec.check(); err != nil {
		return nil, err
	}
	if config.Dial == nil {
		config.Dial = reach{}.dial
	}
	return &SMTP{config}, nil
}

// Name implements Sink.
func (s *SMTP) Name() string { return s.config.Name }

// Deliver implements Sink. A notice has one Message-ID, so that one that was sent twice can be known as such.
func (s *SMTP) Deliver(ctx context.Context, notice Notice) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("center: mail by %s: %w", s.config.Addr, err)
		}
	}()
	conn, err := s.config.Dial(ctx, "tcp", s.config.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, set := ctx.Deadline(); set {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends what waits for the server
	defer stop()
	host, _, err := net.SplitHostPort(s.config.Addr)
	if err != nil {
		return err
	}
	client, err := smtp.NewClient(conn, host)
	if err != nil {
		return err
	}
	if offered, _ := client.Extension("STARTTLS"); offered {
		secure := &tls.Config{}
		if s.config.TLS != nil {
			secure = s.config.TLS.Clone()
		}
		if secure.ServerName == "" {
			secure.ServerName = host
		}
		if err := client.StartTLS(secure); err != nil {
			return err
		}
	}
	if s.config.Username != "" {
		password, err := s.config.Password()
		if err != nil {
			return err
		}
		if err := client.Auth(smtp.PlainAuth("", s.config.Username, password, host)); err != nil {
			return errors.New(strings.ReplaceAll("log in: "+err.Error(), password, "******"))
		}
	}
	if err := client.Mail(s.config.From); err != nil {
		return err
	}
	for _, to := range s.config.To {
		if err := client.Rcpt(to); err != nil {
			return err
		}
	}
	body, err := client.Data()
	if err != nil {
		return err
	}
	_, err = body.Write(s.message(notice))
	if err = errors.Join(err, body.Close()); err != nil {
		return err
	}
	// The mail is taken: that the server ends the conversation badly is no fault of it.
	_ = client.Quit()
	return nil
}

// message is the mail. Whatever a notice holds, no header begins where none should.
func (s *SMTP) message(n Notice) []byte {
	var b strings.Builder
	sum := sha256.Sum256([]byte(n.ID))
	for _, header := range [][2]string{
		{"From", s.config.From}, {"To", strings.Join(s.config.To, ", ")}, {"Subject", mime.QEncoding.Encode("utf-8", oneLine(n.subject()))},
		{"Date", n.At.Format(time.RFC1123Z)}, {"Message-ID", "<" + hex.EncodeToString(sum[:16]) + "@zhiyun>"},
		{"X-Zhiyun-Severity", string(n.Severity)}, {"MIME-Version", "1.0"}, {"Content-Type", "text/plain; charset=utf-8"}, {"Content-Transfer-Encoding", "quoted-printable"},
	} {
		b.WriteString(header[0] + ": " + header[1] + "\r\n")
	}
	b.WriteString("\r\n")
	text := quotedprintable.NewWriter(&b)
	_, _ = text.Write([]byte(strings.ReplaceAll(n.Text, "\r", "") + "\n")) // to memory: never fails
	_ = text.Close()
	return []byte(b.String())
}

// subject is the title, or what stands in for one.
func (n Notice) subject() string {
	if n.Title != "" {
		return n.Title
	}
	return strings.TrimSpace(fmt.Sprintf("[%s] %s %s %s", n.Severity, n.Kind, n.Module, n.Device))
}

func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > 200 {
		text = string(runes[:200]) + "..."
	}
	return text
}
