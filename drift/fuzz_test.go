package drift_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/zhiyun-ops/zhiyun/drift"
)

func FuzzProcTexts(f *testing.F) {
	f.Add([]byte("12 (a) b) S 1 12 12 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0"))
	f.Add([]byte("cpu 1 2\nbtime 1700000000\n"))
	f.Add([]byte("/bin/sh\x00-c\x00sleep 1\x00"))
	f.Add([]byte("socket:[123]"))
	if own, err := os.ReadFile("/proc/self/stat"); err == nil {
		f.Add(own)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if state, ticks, err := drift.ParseStat(text); err == nil && (state == 0 || int64(ticks) < 0) {
			t.Errorf("state %d, ticks %d without an error", state, ticks)
		}
		if boot, err := drift.ParseBootTime(text); err != nil && !boot.IsZero() {
			t.Errorf("boot time %v with error %v", boot, err)
		}
		for _, arg := range drift.ParseCmdline(text) {
			if len(arg) > len(text) {
				t.Errorf("an argument longer than the text")
			}
		}
		drift.ParseSocketLink(string(text))
	})
}

func FuzzProcNet(f *testing.F) {
	f.Add([]byte("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0\n"))
	f.Add([]byte("h\n 0: 00000000000000000000000001000000:0050 0:0 0A 0:0 0:0 0 0 0 99\n"))
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp"} {
		if own, err := os.ReadFile(name); err == nil {
			f.Add(own)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, proto := range []string{"tcp", "udp"} {
			addrs, inodes, err := drift.ParseProcNet(proto, text)
			if len(addrs) != len(inodes) {
				t.Errorf("%d addresses, %d inodes", len(addrs), len(inodes))
			}
			for _, a := range addrs {
				if !a.IsValid() {
					t.Errorf("invalid address without an error (%v)", err)
				}
			}
		}
	})
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"files":{"a":{"mode":"0644"}},"ports":[{"port":80}]}`), []byte(`{"files":{"a":{"mode":420,"digest":"sha256:00"}}}`))
	f.Add([]byte(`{"exact":{"dirs":["."]},"processes":[{"name":"a","argv":["x"]}]}`), []byte(`{"files":{"b":{"type":"dir"}},"processes":[{"name":"a"}]}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var x, y drift.State
		if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
			t.Skip()
		}
		seen := make(map[drift.Key]bool)
		for _, finding := range drift.Compare(x, y) {
			if len(finding.Fields) == 0 {
				t.Errorf("a finding about nothing: %+v", finding)
			}
			seen[finding.Key()] = true
		}
		drift.Peers(x, y)
		if found := drift.Peers(x, x); len(found) != 0 && len(x.Coverage) == 0 {
			for _, g := range found {
				t.Errorf("a device differs from itself: %v", g)
			}
		}
	})
}
