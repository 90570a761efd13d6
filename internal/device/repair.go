package device

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// RepairIn is one file as it must be.
type RepairIn struct {
	// Path of the file, below the root. Required.
	Path string
	// Digest is sha256:HEX of its content. Required unless Remove.
	Digest string
	// Mode is octal permissions. Default: those the file has, or 0644.
	Mode string
	// Content is the file's bytes, where they are at hand: a rendered configuration. Default: none.
	Content []byte
	// Package is the digest of the package that holds the file, for a path below pkg/NAME/VERSION-DIGEST8/.
	// Default: the file is a blob of its own.
	Package string
	// Link is the target of the symbolic link that the path must be, relative to its folder and within the root. Digest,
	// Mode, Content and Package do not apply then. Default: the path is a file.
	Link string
	// Remove has the path removed: it must not be there.
	Remove bool
}

// Repair makes one file, or one link, what it must be, in one motion; what is right is left alone. It needs no key and
// keeps no journal: what was there is wrong. Codes: those of file.sync, and package.no_such_file.
func Repair(ctx context.Context, env Env, in RepairIn) (changed bool, err error) {
	changed, err = repair(ctx, env, in)
	if err != nil {
		return false, named(err)
	}
	return changed, nil
}

func repair(ctx context.Context, env Env, in RepairIn) (bool, error) {
	env, err := env.check(false)
	if err != nil {
		return false, err
	}
	p, err := local(in.Path)
	if err != nil {
		return false, err
	}
	root, err := os.OpenRoot(env.Root)
	if err != nil {
		return false, err
	}
	defer root.Close()
	if in.Remove {
		if _, err := root.Lstat(p); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return true, root.RemoveAll(p)
	}
	if in.Link != "" {
		return relink(root, p, in.Link)
	}
	digits, err := hexDigest(in.Digest)
	if err != nil {
		return false, err
	}
	have, mode, err := digestOf(root, p)
	if err != nil {
		return false, err
	}
	want := mode
	if in.Mode != "" || have == "" {
		if want, err = parseMode(in.Mode); err != nil {
			return false, err
		}
	}
	if have == digits {
		if mode == want {
			return false, nil
		}
		return true, root.Chmod(p, want)
	}
	content, err := env.source(ctx, in, p, digits)
	if err != nil {
		return false, err
	}
	defer content.Close()
	if err := root.MkdirAll(path.Dir(p), 0o755); err != nil {
		return false, err
	}
	if info, err := root.Lstat(p); err == nil && info.IsDir() {
		if err := root.RemoveAll(p); err != nil {
			return false, err
		}
	}
	_, err = put(root, p, &bounded{content, env.MaxUnpacked, p}, want, digits)
	return true, err
}

// relink makes p the link that it must be.
func relink(root *os.Root, p, target string) (bool, error) {
	if _, err := local(path.Join(path.Dir(p), target)); err != nil || path.IsAbs(target) {
		return false, fail("path.outside", "%s would link to %q, outside the root", p, target)
	}
	switch info, err := root.Lstat(p); {
	case errors.Is(err, fs.ErrNotExist):
		if err := root.MkdirAll(path.Dir(p), 0o755); err != nil {
			return false, err
		}
	case err != nil:
		return false, err
	case info.Mode()&fs.ModeSymlink != 0:
		if have, err := root.Readlink(p); err != nil || have == target {
			return false, err
		}
	case info.IsDir():
		if err := root.RemoveAll(p); err != nil {
			return false, err
		}
	}
	return true, link(root, p, target)
}

// source opens the content of a file from where it is kept.
func (e Env) source(ctx context.Context, in RepairIn, p, digits string) (io.ReadCloser, error) {
	if in.Content != nil {
		return io.NopCloser(strings.NewReader(string(in.Content))), nil
	}
	if err := need(e.Blobs != nil, "blob source", "set ZHIYUN_SERVER to the server's target"); err != nil {
		return nil, err
	}
	if in.Package == "" {
		return e.Blobs.Open(ctx, "sha256:"+digits)
	}
	parts := strings.SplitN(p, "/", 4)
	if len(parts) < 4 || parts[0] != "pkg" {
		return nil, fail("input.invalid", "path %q is not below pkg/NAME/VERSION", p)
	}
	blob, err := e.Blobs.Open(ctx, in.Package)
	if err != nil {
		return nil, err
	}
	content, err := findEntry(&bounded{blob, e.MaxBlob, in.Package}, parts[3])
	if err != nil {
		return nil, errors.Join(err, blob.Close())
	}
	return &entry{content, blob}, nil
}

type entry struct {
	io.Reader
	io.Closer
}

// findEntry reads a tar, compressed by gzip or not, up to the content of a file.
func findEntry(from io.Reader, p string) (io.Reader, error) {
	buffered := bufio.NewReader(from)
	var reader io.Reader = buffered
	if magic, _ := buffered.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		zipped, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, fail("package.damaged", "gzip: %v", err)
		}
		reader = zipped
	}
	archive := tar.NewReader(reader)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil, fail("package.no_such_file", "the package has no file %s", p)
		}
		if err != nil {
			return nil, fail("package.damaged", "tar: %v", err)
		}
		if header.Typeflag == tar.TypeReg && path.Clean(header.Name) == p {
			return archive, nil
		}
	}
}
