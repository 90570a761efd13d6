package center

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Blobs keeps contents in a folder under their sha256. A blob is there whole or not at all: it is written to a
// temporary file, synced, and renamed. Contents never change; the folder is private to the user that runs it.
type Blobs struct {
	dir  string
	most int64
}

// DigestPrefix stands before the hex digits of a digest.
const DigestPrefix = "sha256:"

// ParseDigest takes "sha256:HEX" or the 64 hex digits alone and returns the digits.
func ParseDigest(digest string) (string, error) {
	digits := strings.TrimPrefix(digest, DigestPrefix)
	if len(digits) != sha256.Size*2 || strings.Trim(digits, "0123456789abcdef") != "" {
		return "", fault("digest", digest, "give sha256: and 64 lower-case hex digits")
	}
	return digits, nil
}

func (b *Blobs) path(digits string) string {
	return filepath.Join(b.dir, "sha256", digits[:2], digits)
}

// Open returns the content of a digest and its size, or ErrNotFound. The caller closes it.
func (b *Blobs) Open(ctx context.Context, digest string) (io.ReadSeekCloser, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	digits, err := ParseDigest(digest)
	if err != nil {
		return nil, 0, err
	}
	file, err := os.Open(b.path(digits))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("%w: blob %s; push it again", ErrNotFound, digest)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("center: open blob: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("center: open blob: %w", err), file.Close())
	}
	return file, info.Size(), nil
}

// Read returns a small content whole: at most 16 MiB, or a fault.
func (b *Blobs) Read(ctx context.Context, digest string) ([]byte, error) {
	content, size, err := b.Open(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	if size > 16<<20 {
		return nil, fault("digest", digest, "holds %d bytes, too many to read at once; open it", size)
	}
	return io.ReadAll(content)
}

// Put keeps what content yields and returns its digest ("sha256:HEX") and size. If want is not empty, other
// content is refused and nothing is kept. The same content twice is kept once.
func (b *Blobs) Put(ctx context.Context, content io.Reader, want string) (string, int64, error) {
	if want != "" {
		if _, err := ParseDigest(want); err != nil {
			return "", 0, err
		}
	}
	draft, err := b.draft(ctx)
	if err != nil {
		return "", 0, err
	}
	defer draft.discard()
	if _, err := io.Copy(draft, content); err != nil {
		return "", 0, fmt.Errorf("center: receive blob: %w", err)
	}
	if want != "" && DigestPrefix+draft.digits() != DigestPrefix+strings.TrimPrefix(want, DigestPrefix) {
		return "", 0, fault("digest", want, "the content that arrived has sha256:%s; send it again", draft.digits())
	}
	return draft.keep()
}

// Keep is Put of a content at hand; one that is kept already is not written again.
func (b *Blobs) Keep(ctx context.Context, content []byte) (string, error) {
	sum := sha256.Sum256(content)
	digits := hex.EncodeToString(sum[:])
	if _, err := os.Stat(b.path(digits)); err == nil {
		return DigestPrefix + digits, nil
	}
	digest, _, err := b.Put(ctx, bytes.NewReader(content), digits)
	return digest, err
}

// draft is a blob while it is written.
type draft struct {
	ctx   context.Context
	blobs *Blobs
	file  *os.File // nil once kept or discarded
	sum   hash.Hash
	size  int64
}

func (b *Blobs) draft(ctx context.Context) (*draft, error) {
	tmp := filepath.Join(b.dir, "tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return nil, fmt.Errorf("center: blob folder: %w", err)
	}
	file, err := os.CreateTemp(tmp, "blob-*")
	if err != nil {
		return nil, fmt.Errorf("center: blob folder: %w", err)
	}
	return &draft{ctx: ctx, blobs: b, file: file, sum: sha256.New()}, nil
}

func (d *draft) Write(p []byte) (int, error) {
	if err := d.ctx.Err(); err != nil {
		return 0, err
	}
	if d.size += int64(len(p)); d.size > d.blobs.most {
		return 0, fault("content", fmt.Sprintf("over %d bytes", d.blobs.most), "send less, or raise the limit of one blob")
	}
	d.sum.Write(p)
	return d.file.Write(p)
}

func (d *draft) digits() string { return hex.EncodeToString(d.sum.Sum(nil)) }

func (d *draft) keep() (string, int64, error) {
	digits := d.digits()
	if store.RehearsalOf(d.ctx) != nil {
		return DigestPrefix + digits, d.size, nil // discard removes it
	}
	target := d.blobs.path(digits)
	file := d.file
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return "", 0, fmt.Errorf("center: write blob: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return "", 0, fmt.Errorf("center: blob folder: %w", err)
	}
	if err := os.Rename(file.Name(), target); err != nil {
		return "", 0, fmt.Errorf("center: publish blob: %w", err)
	}
	d.file = nil
	// Without these the name may be lost with the machine, while the record that cites it is not.
	for _, dir := range []string{filepath.Dir(target), filepath.Dir(filepath.Dir(target))} {
		if err := syncDir(dir); err != nil {
			return "", 0, err
		}
	}
	return DigestPrefix + digits, d.size, nil
}

// discard removes the draft, unless it was kept. Faults do not matter: sweep removes what stays behind.
func (d *draft) discard() {
	if d.file != nil {
		_ = d.file.Close()
		_ = os.Remove(d.file.Name())
		d.file = nil
	}
}

func syncDir(dir string) error {
	handle, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("center: sync folder: %w", err)
	}
	if err := errors.Join(handle.Sync(), handle.Close()); err != nil {
		return fmt.Errorf("center: sync folder %s: %w", dir, err)
	}
	return nil
}

// sweep removes drafts that a process left when it died. Younger ones may still be written, by another process.
func (b *Blobs) sweep(now time.Time) error {
	drafts, err := filepath.Glob(filepath.Join(b.dir, "tmp", "blob-*"))
	if err != nil {
		return err
	}
	var faults []error
	for _, name := range drafts {
		info, err := os.Stat(name)
		if err == nil && now.Sub(info.ModTime()) > 24*time.Hour {
			err = os.Remove(name)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
