package drift

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// listening returns the sockets that listen: by sock_diag, whose filter works in the kernel, or from /proc/net where
// the kernel refuses that.
func listening(_ context.Context, proc string, _ netip.Addr, protos []string, _ []Port) ([]socket, string, []Gap, error) {
	var out []socket
	var refused error
	for _, proto := range protos {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			sockets, err := sockDiag(family, proto)
			refused = errors.Join(refused, err)
			out = append(out, sockets...)
		}
	}
	if refused == nil {
		return out, "sock_diag", nil, nil
	}
	out, err := procNet(proc, protos)
	if err != nil {
		return nil, "", nil, errors.Join(err, refused)
	}
	return out, "procfs", nil, nil
}

// Sizes and numbers of linux/inet_diag.h and linux/sock_diag.h.
const (
	sockDiagByFamily = 20
	diagRequestSize  = 56 // struct inet_diag_req_v2
	diagMessageSize  = 72 // struct inet_diag_msg
)

// sockDiag asks the kernel for the listening sockets of one family and protocol.
func sockDiag(family uint8, proto string) ([]socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("drift: open sock_diag: %w", err)
	}
	defer unix.Close(fd)
	// The kernel answers at once or not at all; the limit keeps a lost answer from blocking for ever.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return nil, fmt.Errorf("drift: open sock_diag: %w", err)
	}
	number, state := uint8(unix.IPPROTO_TCP), uint32(stateListen)
	if proto == "udp" {
		number, state = unix.IPPROTO_UDP, stateUnconnected
	}
	request := make([]byte, unix.SizeofNlMsghdr+diagRequestSize)
	binary.NativeEndian.PutUint32(request[0:], uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	request[16], request[17] = family, number
	binary.NativeEndian.PutUint32(request[20:], 1<<state)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("drift: ask sock_diag: %w", err)
	}
	var out []socket
	buffer := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("drift: read sock_diag: %w", err)
		}
		var done bool
		if out, done, err = parseDiag(out, proto, buffer[:n]); err != nil || done {
			return out, err
		}
	}
}

// parseDiag adds the sockets in one datagram of sock_diag's answer, and says whether it was the last.
func parseDiag(out []socket, proto string, data []byte) ([]socket, bool, error) {
	for len(data) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(data))
		if size < unix.SizeofNlMsghdr || size > len(data) {
			return out, false, fmt.Errorf("drift: sock_diag sent a message of %d bytes in %d", size, len(data))
		}
		body := data[unix.SizeofNlMsghdr:size]
		switch binary.NativeEndian.Uint16(data[4:]) {
		case unix.NLMSG_DONE:
			return out, true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return out, false, errors.New("drift: sock_diag sent an error of no length")
			}
			return out, false, fmt.Errorf("drift: sock_diag: %w", unix.Errno(-int32(binary.NativeEndian.Uint32(body))))
		case sockDiagByFamily:
			if len(body) < diagMessageSize {
				return out, false, fmt.Errorf("drift: sock_diag sent a socket of %d bytes, expected %d", len(body), diagMessageSize)
			}
			addr, _ := netip.AddrFromSlice(body[8:24])
			if body[0] == unix.AF_INET {
				addr, _ = netip.AddrFromSlice(body[8:12])
			}
			out = append(out, socket{proto: proto, addr: addr, port: binary.BigEndian.Uint16(body[4:]),
				inode: uint64(binary.NativeEndian.Uint32(body[68:]))})
		}
		data = data[min(len(data), (size+3)&^3):]
	}
	return out, false, nil
}
