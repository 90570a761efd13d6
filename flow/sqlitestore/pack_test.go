package sqlitestore

import (
	"bytes"
	"strings"
	"testing"
)

// typical is what a step of a flow stores.
const typical = `[{"kind":"attempt.done","step":"s20","attempt":1,"output":{"text":"begin"}},{"kind":"step.done","step":"s20"},{"kind":"attempt.started","step":"s21","attempt":1,"input":{"from":"begin","step":21,"wf":"w"}}]`

func TestPacked(t *testing.T) {
	t.Parallel()
	for _, one := range []struct{ body, packed string }{
		{"", ""},
		{"[]", "[]"},
		{typical, "\x01s20\x12text\":\"begin\x22\x04s20\x02s21\x11from\":\"begin\",\"step\":21,\"wf\":\"w\"}}]"},
		{`[{"kind":"attempt.doubt","step":"s","item":3,"attempt":2}]`, "[\x0cdoubt\x1es\x183\x172}]"},
		{"[\t\r\n]", "[\t\r\n]"},
		{"no JSON: \x01", "\x00no JSON: \x01"},
		{"\x00", "\x00\x00"},
	} {
		if got := string(pack([]byte(one.body))); got != one.packed {
			t.Errorf("%q is packed as %q, want %q", one.body, got, one.packed)
		}
		if got := string(unpack([]byte(one.packed))); got != one.body {
			t.Errorf("%q is unpacked as %q, want %q", one.packed, got, one.body)
		}
	}
}

// A phrase has a byte of its own that JSON has not, and none hides another.
func TestPhrases(t *testing.T) {
	t.Parallel()
	for i, p := range phrases {
		if len(p.code) != 1 || !stands(p.code[0]) || p.code[0] == asIs {
			t.Errorf("%q cannot stand for a phrase", p.code)
		}
		for _, before := range phrases[:i] {
			if before.code == p.code {
				t.Errorf("%q stands for two phrases", p.code)
			}
			if strings.HasPrefix(p.text, before.text) {
				t.Errorf("%q comes behind %q, with which it begins", p.text, before.text)
			}
		}
	}
}

func FuzzPack(f *testing.F) {
	for _, seed := range []string{"", typical, "\x00", "\x01", `[{"kind":"step.done","step":"é"}]`, "\xff\x02"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if got := unpack(pack(body)); !bytes.Equal(got, body) {
			t.Fatalf("%q comes back as %q", body, got)
		}
		_ = unpack(body) // what is damaged does no harm
	})
}

func BenchmarkPack(b *testing.B) {
	body := []byte(typical)
	packed := pack(body)
	b.Run("pack", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			pack(body)
		}
		b.ReportMetric(float64(len(packed))/float64(len(body)), "left")
	})
	b.Run("unpack", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			unpack(packed)
		}
	})
}
