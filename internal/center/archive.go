package center

import (
	"archive/tar"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/zhiyun-ops/zhiyun/internal/inflate"
)

// PackageFile is one entry of a package.
type PackageFile struct {
	Path   string `json:"path"`             // relative, with '/'
	Kind   string `json:"kind"`             // file, dir or link
	Mode   uint32 `json:"mode"`             // permission bits
	Size   int64  `json:"size,omitempty"`   // of a file
	Digest string `json:"digest,omitempty"` // of a file: sha256:HEX
	Target string `json:"target,omitempty"` // of a link: relative to the link's folder, and inside the package
}

// Kinds of a package's entries.
const (
	EntryFile = "file"
	EntryDir  = "dir"
	EntryLink = "link"
)

// MaxEntries bounds what a package may hold; Config.MaxUnpacked and MaxRatio bound what it may unpack to.
const MaxEntries = 100_000

// inspect reads a tar or tar.gz archive once, to its end, and lists its entries in path order.
func inspect(archive io.Reader, limit inflate.Limit) (files []PackageFile, format string, err error) {
	plain, err := limit.Open(archive)
	if err != nil {
		return nil, "", fault("archive", "gzip", "cannot be read: %v; pack it again with tar czf", err)
	}
	if files, err = entries(plain); err != nil {
		return nil, "", err
	}
	// What follows the end of the tar is part of the archive's digest (and gzip's checksum comes last).
	if err := plain.Rest(); err != nil {
		return nil, "", unreadable(err)
	}
	if plain.Gzip {
		return files, "tar.gz", nil
	}
	return files, "tar", nil
}

func unreadable(err error) error {
	var own *FaultError
	if errors.As(err, &own) {
		return err
	}
	if too := (*inflate.Error)(nil); errors.As(err, &too) {
		return fault("archive entry", too.Entry, "%v; split the package, or raise the limits of the package store", too)
	}
	return fault("archive", "stream", "cannot be read to its end: %v; pack it again with tar czf and push it whole", err)
}

func entries(plain *inflate.Reader) ([]PackageFile, error) {
	var files []PackageFile
	seen := make(map[string]string)
	reader := tar.NewReader(plain)
	for {
		header, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, unreadable(err)
		}
		name := path.Clean(strings.TrimSuffix(header.Name, "/"))
		if name == "." && header.Typeflag == tar.TypeDir {
			continue
		}
		if len(files) == MaxEntries {
			return nil, fault("archive", fmt.Sprintf("over %d entries", MaxEntries), "split the package")
		}
		if err := plain.At(header.Name, header.Size); err != nil {
			return nil, unreadable(err)
		}
		entry, err := read(reader, header, name)
		if err != nil {
			return nil, err
		}
		if _, twice := seen[name]; twice {
			return nil, fault("archive", header.Name, "stands in the archive twice; pack each path once")
		}
		seen[name] = entry.Kind
		files = append(files, entry)
	}
	if !slices.ContainsFunc(files, func(f PackageFile) bool { return f.Kind == EntryFile }) {
		return nil, fault("archive", "no file", "a package holds at least one file; push a tar or tar.gz")
	}
	for name := range seen {
		// A file unpacked below another entry's link would be written somewhere else.
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if kind, ok := seen[dir]; ok && kind != EntryDir {
				return nil, fault("archive", name, "lies below %q, which is a %s; only folders hold entries", dir, kind)
			}
		}
	}
	slices.SortFunc(files, func(a, b PackageFile) int { return cmp.Compare(a.Path, b.Path) })
	return files, nil
}

func read(reader io.Reader, header *tar.Header, name string) (PackageFile, error) {
	if err := checkPath("archive entry", name); err != nil {
		return PackageFile{}, err
	}
	entry := PackageFile{Path: name, Mode: uint32(header.Mode) & 0o777}
	if header.Mode&0o6000 != 0 {
		return entry, fault("archive entry", name, "has setuid or setgid (mode %o); packages never carry those", header.Mode)
	}
	switch header.Typeflag {
	case tar.TypeDir:
		entry.Kind = EntryDir
	case tar.TypeReg:
		sum := sha256.New()
		size, err := io.Copy(sum, reader)
		if err != nil {
			return entry, unreadable(err)
		}
		entry.Kind, entry.Size, entry.Digest = EntryFile, size, DigestPrefix+hex.EncodeToString(sum.Sum(nil))
	case tar.TypeSymlink:
		target := path.Join(path.Dir(name), header.Linkname)
		if path.IsAbs(header.Linkname) || target == ".." || strings.HasPrefix(target, "../") {
			return entry, fault("archive entry", name, "links to %q, outside the package; link inside it", header.Linkname)
		}
		entry.Kind, entry.Mode, entry.Target = EntryLink, 0o777, header.Linkname
	default:
		return entry, fault("archive entry", name, "is of tar type %q; packages hold files, folders and symbolic links", header.Typeflag)
	}
	return entry, nil
}
