// Package devicetest has what tests of device tools need: blobs and routes that fail on demand, packages
// made of a few lines, and a picture of a folder to compare.
package devicetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/device"
)

// Blobs is a device.Blobs in memory. The zero value is empty and ready.
type Blobs struct {
	mu     sync.Mutex // guards what follows
	blobs  map[string][]byte
	opened int
	broken error
	spoil  bool
	before func(digest string)
}

// Put keeps content and returns its digest.
func (b *Blobs) Put(content []byte) string {
	sum := sha256.Sum256(content)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.blobs == nil {
		b.blobs = map[string][]byte{}
	}
	b.blobs[digest] = bytes.Clone(content)
	return digest
}

// Break has every Open fail with err; nil mends it.
func (b *Blobs) Break(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = err
}

// Spoil has every blob come with another content than its digest says.
func (b *Blobs) Spoil(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spoil = on
}

// Before has f called ahead of each Open.
func (b *Blobs) Before(f func(digest string)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.before = f
}

// Opened counts the calls of Open.
func (b *Blobs) Opened() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.opened
}

// Open implements device.Blobs.
func (b *Blobs) Open(_ context.Context, digest string) (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opened++
	if b.before != nil {
		b.before(digest)
	}
	if b.broken != nil {
		return nil, b.broken
	}
	content, ok := b.blobs[digest]
	if !ok {
		return nil, &device.Error{Code: "blob.not_found", Message: "no " + digest}
	}
	if b.spoil {
		content = append(bytes.Clone(content), "spoilt"...)
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}

// Routes is a device.Routes that answers as told. The zero value has a route for everything.
type Routes struct {
	mu      sync.Mutex // guards what follows
	answers map[string]error
	asked   int
}

// Answer has Warm of the service return err.
func (r *Routes) Answer(service string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answers == nil {
		r.answers = map[string]error{}
	}
	r.answers[service] = err
}

// Asked counts the calls of Warm.
func (r *Routes) Asked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// Warm implements device.Routes.
func (r *Routes) Warm(_ context.Context, _, service string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	return r.answers[service]
}

// Entry is one entry of a package. Mode 0 is 0644; a name ending in / is a folder; Link makes a link.
type Entry struct {
	Name, Content, Link string
	Mode                int64
	Type                byte
}

// Tar packs entries.
func Tar(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Name: e.Name, Mode: e.Mode, Size: int64(len(e.Content)), Typeflag: tar.TypeReg, Linkname: e.Link}
		switch {
		case e.Type != 0:
			h.Typeflag = e.Type
		case e.Link != "":
			h.Typeflag = tar.TypeSymlink
		case strings.HasSuffix(e.Name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.Content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Gzip compresses.
func Gzip(t testing.TB, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Tree draws everything below root but the tools' own var/zhiyun and what it needs: a line each with kind,
// mode, path and digest or target.
func Tree(t testing.TB, root string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(root, func(p string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil || rel == "." {
			return err
		}
		if rel == "var" || rel == filepath.Join("var", "zhiyun") {
			if rel != "var" {
				return fs.SkipDir
			}
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%v %s", info.Mode(), rel)
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + target
		case info.Mode().IsRegular():
			content, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(content)
			line += " " + hex.EncodeToString(sum[:6])
		}
		fmt.Fprintln(&out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}
