package inflate_test

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/inflate"
)

func zipped(t *testing.T, content io.Reader) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := io.Copy(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestLimits(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	noise := make([]byte, mib)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	bomb := zipped(t, io.LimitReader(zeros{}, 256*mib))
	for _, test := range []struct {
		name    string
		archive []byte
		limit   inflate.Limit
		ratio   bool
		most    int64 // that may have come out when it is stopped; 0: it is not
	}{
		{"plain", noise, inflate.Limit{}, false, 0},
		{"compressed", zipped(t, bytes.NewReader(noise)), inflate.Limit{}, false, 0},
		{"compressible, and small", zipped(t, io.LimitReader(zeros{}, 60*mib)), inflate.Limit{}, false, 0},
		{"plain, too large", noise, inflate.Limit{Bytes: mib / 2}, false, mib},
		{"a bomb, by its ratio", bomb, inflate.Limit{}, true, 65 * mib},
		{"a bomb, by its size", bomb, inflate.Limit{Bytes: 10 * mib, Ratio: 5000}, false, 11 * mib},
		{"a bomb that is allowed", bomb, inflate.Limit{Ratio: 5000}, false, 0},
	} {
		r, err := test.limit.Open(bytes.NewReader(test.archive))
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if err := r.At("bin/cart", 10); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		n, err := io.Copy(io.Discard, r)
		var too *inflate.Error
		switch is := errors.As(err, &too); {
		case test.most == 0 && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.most > 0 && (!is || too.Entry != "bin/cart" || too.Ratio != test.ratio || !strings.Contains(err.Error(), `"bin/cart"`)):
			t.Errorf("%s: %v", test.name, err)
		case test.most > 0 && n > test.most:
			t.Errorf("%s: stopped after %d bytes, want at most %d", test.name, n, test.most)
		}
	}
}

// An entry that declares more than fits is refused before a byte of it is read.
func TestDeclaredSize(t *testing.T) {
	t.Parallel()
	r, err := inflate.Limit{Bytes: 100}.Open(strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	for size, fits := range map[int64]bool{0: true, 100: true, 101: false, 1 << 62: false, -1: false} {
		if err := r.At("big", size); (err == nil) != fits {
			t.Errorf("an entry of %d: %v", size, err)
		}
	}
}
