package device

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/zhiyun-ops/zhiyun/internal/inflate"
)

// maxEntries bounds how many files, folders and links a package may have.
const maxEntries = 100_000

// unpack writes a tar, compressed by gzip or not, below root, which is empty. It knows files, folders and
// relative links that stay inside; anything else, or more than limit allows, is refused with code "package.unsafe"
// or "package.too_large".
func unpack(root *os.Root, from io.Reader, limit inflate.Limit) (files int, size int64, err error) {
	plain, err := limit.Open(from)
	if err != nil {
		return 0, 0, fail("package.damaged", "gzip: %v", err)
	}
	archive := tar.NewReader(plain)
	for entries := 0; ; entries++ {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, size, nil
		}
		if err != nil {
			return files, size, unreadable("tar", err)
		}
		if entries >= maxEntries {
			return files, size, fail("package.too_large", "more than %d entries", maxEntries)
		}
		if err := plain.At(header.Name, header.Size); err != nil {
			return files, size, unreadable("tar", err)
		}
		size += header.Size
		p := path.Clean(header.Name)
		if p == "." && header.Typeflag == tar.TypeDir {
			continue
		}
		if p == "." || !filepath.IsLocal(filepath.FromSlash(p)) || strings.ContainsRune(p, 0) {
			return files, size, fail("package.unsafe", "entry %q leaves the package", header.Name)
		}
		if err := unpackEntry(root, archive, header, p); err != nil {
			return files, size, err
		}
		if header.Typeflag == tar.TypeReg {
			files++
		}
	}
}

// unreadable tells an archive that is too much from one that is damaged.
func unreadable(what string, err error) error {
	if too := (*inflate.Error)(nil); errors.As(err, &too) {
		return fail("package.too_large", "%v", too)
	}
	return fail("package.damaged", "%s: %v", what, err)
}

func unpackEntry(root *os.Root, content io.Reader, header *tar.Header, p string) error {
	mode := fs.FileMode(header.Mode).Perm() // without setuid, setgid and sticky
	if dir := path.Dir(p); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	switch header.Typeflag {
	case tar.TypeDir:
		if err := root.MkdirAll(p, 0o755); err != nil {
			return err
		}
		return root.Chmod(p, mode|0o700)
	case tar.TypeReg:
		file, err := root.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return fail("package.unsafe", "entry %q stands there twice", header.Name)
		}
		if err != nil {
			return err
		}
		_, err = io.Copy(file, content)
		if err != nil {
			err = unreadable(fmt.Sprintf("entry %q", header.Name), err)
		}
		return errors.Join(err, file.Chmod(mode|0o400), file.Sync(), file.Close())
	case tar.TypeSymlink:
		target := path.Join(path.Dir(p), header.Linkname)
		if path.IsAbs(header.Linkname) || target != "." && !filepath.IsLocal(filepath.FromSlash(target)) {
			return fail("package.unsafe", "link %q points out of the package, to %q", header.Name, header.Linkname)
		}
		return root.Symlink(header.Linkname, p)
	case tar.TypeXGlobalHeader:
		return nil
	}
	return fail("package.unsafe", "entry %q is of type %q; a package has files, folders and links", header.Name, header.Typeflag)
}
