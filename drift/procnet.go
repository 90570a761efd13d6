package drift

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
)

// States of a socket in the kernel's tables.
const (
	stateListen      = 0x0a // of TCP
	stateUnconnected = 0x07 // of UDP: it receives from anybody
)

// procNet reads the listening sockets from /proc/net, for kernels or containers that refuse sock_diag.
func procNet(proc string, protos []string) ([]socket, error) {
	var out []socket
	for _, proto := range protos {
		for _, file := range []string{proto, proto + "6"} {
			text, err := os.ReadFile(filepath.Join(proc, "net", file))
			if os.IsNotExist(err) && file != proto {
				continue // no IPv6
			}
			if err != nil {
				return nil, fmt.Errorf("drift: read listening ports: %w", err)
			}
			out, err = parseProcNet(out, proto, text)
			if err != nil {
				return nil, fmt.Errorf("drift: read listening ports from %s: %w", file, err)
			}
		}
	}
	return out, nil
}

// parseProcNet adds the listening sockets in the text of /proc/net/tcp and its like.
func parseProcNet(out []socket, proto string, text []byte) ([]socket, error) {
	wanted := byte(stateListen)
	if proto == "udp" {
		wanted = stateUnconnected
	}
	first := true
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if first || len(fields) == 0 {
			first = false // the heading
			continue
		}
		if len(fields) < 10 {
			return out, fmt.Errorf("a line has %d fields, expected 10 or more: %.80q", len(fields), line)
		}
		state, err := strconv.ParseUint(string(fields[3]), 16, 8)
		if err != nil {
			return out, fmt.Errorf("a state is no hex number: %w", err)
		}
		if byte(state) != wanted {
			continue
		}
		addr, port, err := parseProcAddr(fields[1])
		if err != nil {
			return out, err
		}
		inode, err := strconv.ParseUint(string(fields[9]), 10, 64)
		if err != nil {
			return out, fmt.Errorf("an inode is no number: %w", err)
		}
		out = append(out, socket{proto: proto, addr: addr, port: port, inode: inode})
	}
	return out, nil
}

// parseProcAddr reads "0100007F:1F90": the address as 32-bit words in the byte order of the machine, the port in
// network order.
func parseProcAddr(text []byte) (netip.Addr, uint16, error) {
	host, rest, ok := bytes.Cut(text, []byte(":"))
	if !ok || len(host) != 8 && len(host) != 32 {
		return netip.Addr{}, 0, fmt.Errorf("%.60q is no address and port", text)
	}
	port, err := strconv.ParseUint(string(rest), 16, 16)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("a port is no hex number: %w", err)
	}
	raw := make([]byte, len(host)/2)
	if _, err := hex.Decode(raw, host); err != nil {
		return netip.Addr{}, 0, fmt.Errorf("an address is no hex number: %w", err)
	}
	for word := raw; len(word) >= 4; word = word[4:] {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	addr, _ := netip.AddrFromSlice(raw)
	return addr, uint16(port), nil
}
