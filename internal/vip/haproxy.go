package vip

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// HAProxyConfig of a HAProxy driver.
type HAProxyConfig struct {
	// Socket is the path of the stats socket, of level admin, or host:port of one on TCP. Required.
	Socket string
	// Backend names the backend of a virtual address. Default: the virtual address, every byte but letters,
	// digits, dash and underscore replaced by an underscore: "shop.cart:80" is shop_cart_80.
	Backend func(vip string) string
	// Options are added to "add server", as in "check inter 500ms". With a check among them health checks are
	// turned on. Default: none.
	Options string
	// Drain is how long sessions of a removed server may go on. Default: 30 s.
	Drain time.Duration
	// Timeout of one command. Default: 5 s.
	Timeout time.Duration
}

// HAProxy changes the real servers of a running HAProxy through its runtime API. It is a VIP.
type HAProxy struct{ config HAProxyConfig }

var _ VIP = (*HAProxy)(nil)

// ErrUnknownVIP says that HAProxy has no backend for a virtual address.
var ErrUnknownVIP = errors.New("vip: HAProxy has no backend for it")

// CommandError is what HAProxy answered to a command that it refused.
type CommandError struct {
	Command string
	Answer  string
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("vip: HAProxy refused %q: %s", e.Command, e.Answer)
}

// NewHAProxy checks config. It opens no connection.
func NewHAProxy(config HAProxyConfig) (*HAProxy, error) {
	var faults []error
	if config.Socket == "" {
		faults = append(faults, fmt.Errorf("%w: Socket is empty; give the path of HAProxy's stats socket", ErrInvalid))
	}
	if strings.ContainsAny(config.Options, ";\n") {
		faults = append(faults, fmt.Errorf("%w: Options %q holds another command", ErrInvalid, config.Options))
	}
	for _, d := range []struct {
		name    string
		value   *time.Duration
		instead time.Duration
	}{{"Drain", &config.Drain, 30 * time.Second}, {"Timeout", &config.Timeout, 5 * time.Second}} {
		if *d.value < 0 {
			faults = append(faults, fmt.Errorf("%w: %s %v is negative; leave it zero for %v", ErrInvalid, d.name, *d.value, d.instead))
		}
		if *d.value == 0 {
			*d.value = d.instead
		}
	}
	if config.Backend == nil {
		config.Backend = plain
	}
	return &HAProxy{config}, errors.Join(faults...)
}

// plain makes a name that HAProxy takes.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, s)
}

// Add implements VIP.
func (h *HAProxy) Add(ctx context.Context, vip, server string, weight int) error {
	if err := checkServer(server, weight); err != nil {
		return err
	}
	rows, err := h.rows(ctx, vip)
	if err != nil {
		return err
	}
	name := h.config.Backend(vip) + "/" + plain(server)
	if _, there := rows[server]; !there {
		command := fmt.Sprintf("add server %s %s weight %d %s", name, server, weight, h.config.Options)
		answer, err := h.command(ctx, command)
		if err == nil && !strings.Contains(answer, "New server registered") && !strings.Contains(answer, "Already exists") {
			err = &CommandError{command, answer}
		}
		if err != nil {
			return err
		}
		if strings.Contains(" "+h.config.Options+" ", " check ") {
			if err := h.silent(ctx, "enable health "+name); err != nil {
				return err
			}
		}
	} else {
		name = h.config.Backend(vip) + "/" + rows[server].name // it may come from the configuration file
		if err := h.silent(ctx, fmt.Sprintf("set server %s weight %d", name, weight)); err != nil {
			return err
		}
	}
	return h.silent(ctx, "set server "+name+" state ready")
}

// Remove implements VIP.
func (h *HAProxy) Remove(ctx context.Context, vip, server string) error {
	rows, err := h.rows(ctx, vip)
	if err != nil {
		return err
	}
	row, there := rows[server]
	if !there {
		return nil
	}
	name := h.config.Backend(vip) + "/" + row.name
	if err := h.silent(ctx, "set server "+name+" state drain"); err != nil {
		return err
	}
	if err := h.drained(ctx, vip, server, name); err != nil {
		return err
	}
	if err := h.silent(ctx, "set server "+name+" state maint"); err != nil {
		return err
	}
	return h.delete(ctx, name)
}

// drained waits until the server has no session left, and ends what goes on for too long.
func (h *HAProxy) drained(ctx context.Context, vip, server, name string) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(h.config.Drain)
	defer limit.Stop()
	for {
		rows, err := h.rows(ctx, vip)
		if err != nil {
			return err
		}
		if row, there := rows[server]; !there || row.server.Connections == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("vip: remove %s from %s: sessions are still open: %w", server, vip, ctx.Err())
		case <-limit.C:
			if err := h.silent(ctx, "shutdown sessions server "+name); err != nil {
				return err
			}
		case <-tick.C:
		}
	}
}

// delete takes the server out of the backend; HAProxy refuses that for a moment after its last session, and
// for good if the server is used by name elsewhere in its configuration.
func (h *HAProxy) delete(ctx context.Context, name string) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(h.config.Timeout)
	defer limit.Stop()
	for {
		command := "del server " + name
		answer, err := h.command(ctx, command)
		if err != nil || strings.Contains(answer, "Server deleted") || strings.Contains(answer, "No such server") {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(&CommandError{command, answer}, ctx.Err())
		case <-limit.C:
			return &CommandError{command, answer}
		case <-tick.C:
		}
	}
}

// Servers implements VIP.
func (h *HAProxy) Servers(ctx context.Context, vip string) ([]Server, error) {
	rows, err := h.rows(ctx, vip)
	if errors.Is(err, ErrUnknownVIP) {
		return []Server{}, nil
	}
	if err != nil {
		return nil, err
	}
	list := []Server{}
	for _, addr := range slices.Sorted(maps.Keys(rows)) {
		list = append(list, rows[addr].server)
	}
	return list, nil
}

// row is one server of "show stat".
type row struct {
	name   string
	server Server
}

// rows reads the backend's servers, by address.
func (h *HAProxy) rows(ctx context.Context, vip string) (map[string]row, error) {
	backend := h.config.Backend(vip)
	answer, err := h.command(ctx, "show stat "+backend+" 6 -1") // backends and servers
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(answer) == "" || strings.Contains(answer, "No such proxy") {
		return nil, fmt.Errorf("%w: virtual address %s wants backend %s; add it to HAProxy's configuration", ErrUnknownVIP, vip, backend)
	}
	rows, err := parseStat(answer)
	if err != nil {
		return nil, fmt.Errorf("vip: HAProxy's answer to show stat: %w", err)
	}
	if rows == nil {
		return nil, fmt.Errorf("%w: virtual address %s wants backend %s; add it to HAProxy's configuration", ErrUnknownVIP, vip, backend)
	}
	return rows, nil
}

// parseStat reads the CSV of "show stat"; nil if there is no backend in it.
func parseStat(text string) (map[string]row, error) {
	reader := csv.NewReader(strings.NewReader(strings.TrimPrefix(strings.TrimSpace(text), "# ")))
	reader.FieldsPerRecord = -1
	records, err := reader.ReadAll()
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, errors.New("it is empty")
	}
	column := map[string]int{}
	for i, name := range records[0] {
		column[name] = i
	}
	for _, name := range []string{"svname", "addr", "uweight", "status", "scur", "stot"} {
		if _, ok := column[name]; !ok {
			return nil, fmt.Errorf("no column %s", name)
		}
	}
	var rows map[string]row
	for _, record := range records[1:] {
		field := func(name string) string {
			if i := column[name]; i < len(record) {
				return record[i]
			}
			return ""
		}
		if rows == nil {
			rows = map[string]row{}
		}
		if name := field("svname"); name != "BACKEND" && name != "FRONTEND" {
			rows[field("addr")] = row{name, statServer(field)}
		}
	}
	return rows, nil
}

func statServer(field func(string) string) Server {
	number := func(name string) int64 {
		n, err := strconv.ParseInt(field(name), 10, 64)
		if err != nil {
			return 0 // a column that is empty
		}
		return n
	}
	s := Server{Addr: field("addr"), Weight: int(number("uweight")), State: Up, Connections: int(number("scur")), Total: number("stot")}
	switch status := field("status"); {
	case strings.HasPrefix(status, "DRAIN"), strings.HasPrefix(status, "MAINT"):
		s.State = Draining
	case strings.HasPrefix(status, "DOWN"):
		s.State = Down
	}
	return s
}

// silent runs a command that answers nothing when it succeeds.
func (h *HAProxy) silent(ctx context.Context, command string) error {
	answer, err := h.command(ctx, command)
	if err == nil && strings.TrimSpace(answer) != "" {
		err = &CommandError{command, strings.TrimSpace(answer)}
	}
	return err
}

// command sends one line over a connection of its own, and reads the answer to its end.
func (h *HAProxy) command(ctx context.Context, line string) (string, error) {
	if strings.ContainsAny(line, ";\n\r") {
		return "", fmt.Errorf("%w: %q holds more than one command", ErrInvalid, line)
	}
	ctx, cancel := context.WithTimeout(ctx, h.config.Timeout)
	defer cancel()
	network := "tcp"
	if strings.HasPrefix(h.config.Socket, "/") {
		network = "unix"
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, h.config.Socket)
	if err != nil {
		return "", fmt.Errorf("vip: HAProxy's socket: %w; is it running, with a stats socket of level admin?", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return "", fmt.Errorf("vip: HAProxy, %q: %w", line, err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return "", fmt.Errorf("vip: HAProxy, %q: %w", line, errors.Join(err, ctx.Err()))
	}
	text := strings.TrimSpace(string(answer))
	for _, refusal := range []string{"Permission denied", "Unknown command", "This command is restricted"} {
		if strings.HasPrefix(text, refusal) {
			first, _, _ := strings.Cut(text, "\n")
			return "", &CommandError{line, first}
		}
	}
	return text, nil
}
