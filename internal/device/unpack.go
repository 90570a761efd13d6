package device

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// maxEntries bounds how many files, folders and links a package may have.
const maxEntries = 100_000

// unpack writes a tar, compressed by gzip or not, below root, which is empty. It knows files, folders and
// relative links that stay inside; anything else, or a size beyond max, is refused with code "package.unsafe"
// or "package.too_large".
func unpack(root *os.Root, from io.Reader, maximum int64) (files int, size int64, err error) {
	buffered := bufio.NewReaderSize(from, 1<<16)
	var reader io.Reader = buffered
	if magic, _ := buffered.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		zipped, err := gzip.NewReader(buffered)
		if err != nil {
			return 0, 0, fail("package.damaged", "gzip: %v", err)
		}
		defer zipped.Close()
		reader = zipped
	}
	archive := tar.NewReader(reader)
	for entries := 0; ; entries++ {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, size, nil
		}
		if err != nil {
			return files, size, fail("package.damaged", "tar: %v", err)
		}
		if entries >= maxEntries {
			return files, size, fail("package.too_large", "more than %d entries", maxEntries)
		}
		if size += header.Size; header.Size < 0 || size > maximum {
			return files, size, fail("package.too_large", "unpacks to more than %d bytes", maximum)
		}
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
			err = fail("package.damaged", "entry %q: %v", header.Name, err)
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
