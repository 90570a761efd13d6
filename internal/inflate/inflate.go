// Package inflate reads archives, compressed by gzip or not, and stops where they unpack to more than they may: a few
// kilobytes can hold gigabytes. It bounds the bytes, and how many come out of one that went in.
//
//	plain, err := inflate.Limit{Bytes: 4 << 30}.Open(file)
//	archive := tar.NewReader(plain)
//	for {
//		header, err := archive.Next() // a *Error once it is too much
//		plain.At(header.Name)         // whom errors name
//		...
package inflate

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
)

// Limit is how much may come out.
type Limit struct {
	// Bytes bounds what comes out in all. Default 4 GiB.
	Bytes int64
	// Ratio bounds how many bytes come out for one that went in; the first 64 MiB are free of it. Default 250: what
	// programs and their data compress to is far below, a bomb is near gzip's own limit of about 1,000.
	Ratio int64
}

// free is what may come out whatever the ratio.
const free = 64 << 20

// Error says that an archive unpacks to more than it may.
type Error struct {
	Entry   string // at which it was noticed; empty: behind the last, or before the first
	Read    int64  // bytes that went in
	Yielded int64  // bytes that came out, or that the entry declares
	Limit   int64
	Ratio   bool // Limit is of Yielded to Read, not of Yielded
}

func (e *Error) Error() string {
	where := "the archive"
	if e.Entry != "" {
		where = fmt.Sprintf("entry %q", e.Entry)
	}
	if e.Ratio {
		return fmt.Sprintf("%s: %d bytes unpack to %d, more than %d times as many", where, e.Read, e.Yielded, e.Limit)
	}
	return fmt.Sprintf("%s: unpacks to %d bytes so far, more than %d", where, e.Yielded, e.Limit)
}

// Reader yields the plain archive. It is for one goroutine.
type Reader struct {
	limit Limit
	in    *counter
	plain io.Reader
	entry string
	out   int64
	// Gzip says that the archive is compressed.
	Gzip bool
}

type counter struct {
	from io.Reader
	n    int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n += int64(n)
	return n, err
}

// Open begins to read. An error says that the header of gzip is damaged.
func (l Limit) Open(from io.Reader) (*Reader, error) {
	if l.Bytes <= 0 {
		l.Bytes = 4 << 30
	}
	if l.Ratio <= 0 {
		l.Ratio = 250
	}
	r := &Reader{limit: l, in: &counter{from: from}}
	buffered := bufio.NewReaderSize(r.in, 64<<10)
	r.plain = buffered
	if magic, err := buffered.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		unzip, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, err
		}
		r.plain, r.Gzip = unzip, true
	}
	return r, nil
}

// At names the entry that comes, for errors, with the size that it declares: one that cannot fit is an *Error before a
// byte of it is read.
func (r *Reader) At(entry string, size int64) error {
	r.entry = entry
	if size < 0 || size > r.limit.Bytes-r.out {
		return &Error{Entry: entry, Read: r.in.n, Yielded: r.out + max(size, 0), Limit: r.limit.Bytes}
	}
	return nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.plain.Read(p)
	r.out += int64(n)
	switch {
	case r.out > r.limit.Bytes:
		return n, &Error{Entry: r.entry, Read: r.in.n, Yielded: r.out, Limit: r.limit.Bytes}
	case r.out > free && r.out/r.limit.Ratio > r.in.n:
		return n, &Error{Entry: r.entry, Read: r.in.n, Yielded: r.out, Limit: r.limit.Ratio, Ratio: true}
	}
	return n, err
}

// Rest reads what follows the end of the archive's last entry, to the end of what was given to Open.
func (r *Reader) Rest() error {
	r.entry = ""
	_, err := io.Copy(io.Discard, r)
	return err
}
