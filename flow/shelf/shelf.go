// Package shelf keeps pushed tools in a folder, each version by its digest, and finds tools among many.
//
//	tools, err := shelf.Open("/var/lib/zhiyun/tools")
//	manifests, err := tools.Current() // at the start: hand each to flow.Tools.Exec
//	staged, err := tools.Stage(archive) // made by Pack: unpacked and checked
//	manifest, err := staged.Keep() // on the shelf and in use: hand it to flow.Engine.Replace
package shelf

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// MaxBytes bounds the files of a pushed tool.
const MaxBytes = 256 << 20

const maxFiles = 4096

// Shelf is a folder of pushed tools:
//
//	DIR/NAME/current          the digest of the version in use
//	DIR/NAME/DIGEST12/        a version: its files, and tool.json with the digest written in
//
// A version is never changed once it is there. Only one process at a time may push to a shelf; any may read it.
type Shelf struct{ dir string }

// Tool is one version of a pushed tool.
type Tool struct {
	Manifest flow.Manifest `json:"manifest"`
	Current  bool          `json:"current"`
	At       time.Time     `json:"at"` // when it was pushed
}

// Open makes the folder if it is not there.
func Open(dir string) (*Shelf, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("shelf: %w", err)
	}
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("shelf: %w", err)
	}
	return &Shelf{absolute}, nil
}

// Stage unpacks a tool's folder, a tar archive, and checks it: paths within, files and folders alone, bounded, a manifest without faults. The
// manifest that it returns has the digest. Keep it with Keep, or Discard it.
func (s *Shelf) Stage(archive io.Reader) (*Staged, error) {
	dir, err := os.MkdirTemp(s.dir, ".stage")
	if err != nil {
		return nil, fmt.Errorf("shelf: push a tool: %w", err)
	}
	staged := &Staged{shelf: s, dir: dir}
	if err := staged.unpack(archive); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: push a tool: %w", flow.ErrInvalid, err), staged.Discard())
	}
	return staged, nil
}

// Staged is a tool that is unpacked and not yet on the shelf.
type Staged struct {
	Manifest flow.Manifest
	shelf    *Shelf
	dir      string
}

// Discard removes what is staged. It may be called after Keep.
func (s *Staged) Discard() error { return os.RemoveAll(s.dir) }

func (s *Staged) unpack(archive io.Reader) error {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	left := int64(MaxBytes)
	reader := tar.NewReader(archive)
	for files := 0; ; files++ {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("not a tar archive: %w", err)
		}
		name := path.Clean(header.Name)
		switch {
		case files >= maxFiles:
			return fmt.Errorf("it has more than %d files", maxFiles)
		case name == ".":
			continue
		case !filepath.IsLocal(name):
			return fmt.Errorf("%q leads out of the folder", header.Name)
		case header.Typeflag == tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case header.Typeflag != tar.TypeReg:
			return fmt.Errorf("%q is neither a file nor a folder; put the file itself there", header.Name)
		case header.Size > left:
			return fmt.Errorf("it has more than %d bytes", int64(MaxBytes))
		default:
			left -= header.Size
			err = unpackFile(root, name, fs.FileMode(header.Mode), reader)
		}
		if err != nil {
			return err
		}
	}
	if s.Manifest, err = flow.ReadManifest(s.dir); err != nil {
		return err
	}
	digest, err := flow.DigestDir(s.dir)
	if err != nil {
		return err
	}
	if s.Manifest.Digest != "" && s.Manifest.Digest != digest {
		return fmt.Errorf("the manifest says digest %s, and the files have %s", s.Manifest.Digest, digest)
	}
	s.Manifest.Digest = digest
	data, err := json.MarshalIndent(s.Manifest, "", "  ")
	if err != nil {
		return err
	}
	return writeSynced(filepath.Join(s.dir, flow.ManifestFile), data)
}

func unpackFile(root *os.Root, name string, mode fs.FileMode, content io.Reader) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644|mode&0o111)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func writeSynced(name string, data []byte) error {
	file, err := os.OpenFile(name+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// Keep puts what is staged on the shelf, makes it the version in use, and returns its manifest as flow.Engine.Replace takes it. The
// same files again are the same version.
func (s *Staged) Keep() (flow.Manifest, error) {
	home := filepath.Join(s.shelf.dir, s.Manifest.Name)
	place := filepath.Join(home, short(s.Manifest.Digest))
	err := os.MkdirAll(home, 0o700)
	if err == nil {
		if _, there := os.Stat(place); there == nil {
			err = s.Discard()
		} else if err = os.Rename(s.dir, place); err == nil {
			err = syncDir(home)
		}
	}
	if err == nil {
		err = s.shelf.Use(s.Manifest.Name, s.Manifest.Digest)
	}
	if err != nil {
		return flow.Manifest{}, fmt.Errorf("shelf: keep tool %s: %w", s.Manifest.Name, err)
	}
	return flow.ReadManifest(place)
}

// short is the name of a version's folder.
func short(digest string) string {
	digest = strings.TrimPrefix(digest, "sha256:")
	return digest[:min(12, len(digest))]
}

// Use makes a version on the shelf, by its digest or the first twelve digits of it, the one in use.
func (s *Shelf) Use(name, digest string) error {
	m, err := s.Version(name, digest)
	if err != nil {
		return err
	}
	return writeSynced(filepath.Join(filepath.Dir(m.Dir), "current"), []byte(filepath.Base(m.Dir)+"\n"))
}

// Version returns the manifest of a version, by its digest or the first twelve digits of it.
func (s *Shelf) Version(name, digest string) (flow.Manifest, error) {
	at := short(digest)
	if !isName(name) || len(at) < 12 || strings.ContainsAny(at, "/.") {
		return flow.Manifest{}, fmt.Errorf("%w: %q of tool %q is not a digest; give at least twelve digits of it", flow.ErrInvalid, digest, name)
	}
	m, err := flow.ReadManifest(filepath.Join(s.dir, name, at))
	if errors.Is(err, fs.ErrNotExist) {
		return flow.Manifest{}, fmt.Errorf("%w: version %s of tool %s", flow.ErrNotFound, at, name)
	}
	return m, err
}

// isName reports whether a text may be a tool's name, and so a folder's.
func isName(name string) bool {
	return name != "" && name[0] != '.' && !strings.ContainsAny(name, `/\*?[`)
}

// List returns all versions of all tools, or those of one, by name and the newest first.
func (s *Shelf) List(name string) ([]Tool, error) {
	pattern := filepath.Join(s.dir, "*", "current")
	if name != "" {
		if !isName(name) {
			return nil, fmt.Errorf("%w: %q is not a tool's name", flow.ErrInvalid, name)
		}
		pattern = filepath.Join(s.dir, name, "current")
	}
	found, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("shelf: %w", err)
	}
	out := []Tool{}
	for _, file := range found {
		current, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("shelf: %w", err)
		}
		entries, err := os.ReadDir(filepath.Dir(file))
		if err != nil {
			return nil, fmt.Errorf("shelf: %w", err)
		}
		versions := []Tool{}
		for _, entry := range entries {
			if !entry.IsDir() {
				continue
			}
			m, err := flow.ReadManifest(filepath.Join(filepath.Dir(file), entry.Name()))
			if err != nil {
				return nil, err
			}
			info, err := entry.Info()
			if err != nil {
				return nil, fmt.Errorf("shelf: %w", err)
			}
			versions = append(versions, Tool{m, entry.Name() == string(bytes.TrimSpace(current)), info.ModTime().UTC()})
		}
		slices.SortStableFunc(versions, func(a, b Tool) int { return b.At.Compare(a.At) })
		out = append(out, versions...)
	}
	return out, nil
}

// Current returns the manifests of the versions in use, by name: hand each to flow.Tools.Exec.
func (s *Shelf) Current() ([]flow.Manifest, error) {
	found, err := filepath.Glob(filepath.Join(s.dir, "*", "current"))
	if err != nil {
		return nil, fmt.Errorf("shelf: %w", err)
	}
	var out []flow.Manifest
	var faults []error
	for _, file := range found {
		current, err := os.ReadFile(file)
		if err == nil {
			var m flow.Manifest
			if m, err = flow.ReadManifest(filepath.Join(filepath.Dir(file), string(bytes.TrimSpace(current)))); err == nil {
				out = append(out, m)
				continue
			}
		}
		faults = append(faults, err)
	}
	return out, errors.Join(faults...)
}

// Pack writes a tool's folder as an archive that Stage takes.
func Pack(dir string, to io.Writer) error {
	writer := tar.NewWriter(to)
	if err := writer.AddFS(os.DirFS(dir)); err != nil {
		return fmt.Errorf("shelf: pack %s: %w", dir, err)
	}
	return writer.Close()
}
