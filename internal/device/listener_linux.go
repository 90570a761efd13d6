package device

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// listener finds the process that listens on a TCP port, and its process group; 0 if the system does not tell.
func listener(addr string, port int) (pid, group int) {
	want, err := netip.ParseAddr(addr)
	if err != nil {
		return 0, 0
	}
	inode := listeningInode("/proc/net/tcp", want, port)
	if inode == "" {
		inode = listeningInode("/proc/net/tcp6", want, port)
	}
	if inode == "" {
		return 0, 0
	}
	link := "socket:[" + inode + "]"
	folders, err := filepath.Glob("/proc/[0-9]*/fd")
	if err != nil {
		return 0, 0
	}
	for _, folder := range folders {
		entries, err := os.ReadDir(folder)
		if err != nil {
			continue // gone, or not ours to see
		}
		for _, entry := range entries {
			if to, err := os.Readlink(filepath.Join(folder, entry.Name())); err != nil || to != link {
				continue
			}
			pid, err := strconv.Atoi(strings.Split(folder, "/")[2])
			if err != nil {
				return 0, 0
			}
			group, err := syscall.Getpgid(pid)
			if err != nil {
				return 0, 0
			}
			return pid, group
		}
	}
	return 0, 0
}

// listeningInode finds the socket that serves addr:port, bound to the address itself or to all.
func listeningInode(table string, addr netip.Addr, port int) string {
	file, err := os.Open(table)
	if err != nil {
		return ""
	}
	defer file.Close()
	wild := ""
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != "0A" {
			continue
		}
		address, number, found := strings.Cut(fields[1], ":")
		if !found || number != fmt.Sprintf("%04X", port) {
			continue
		}
		switch have := kernelAddr(address); {
		case have == addr.Unmap():
			return fields[9]
		case have.IsUnspecified():
			wild = fields[9]
		}
	}
	return wild
}

// kernelAddr reads an address as /proc/net/tcp prints it: 32-bit words in the machine's order.
func kernelAddr(digits string) netip.Addr {
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw)%4 != 0 {
		return netip.Addr{}
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	addr, _ := netip.AddrFromSlice(raw)
	return addr.Unmap()
}
