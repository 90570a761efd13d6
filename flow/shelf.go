package flow

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
)

// Shelf keeps pushed tools in a folder, each version by its digest:
//
//	DIR/NAME/current          the digest of the version in use
//	DIR/NAME/DIGEST12/        a version: its files, and tool.json with the digest written in
//
// A version is never changed once it is there. Only one process at a time may push to a shelf; any may read it.
type Shelf struct{ dir string }

const maxToolFiles = 4096 // of a pushed tool

// ShelvedTool is one version of a pushed tool.
type ShelvedTool struct {
	Manifest Manifest  `json:"manifest"`
	Current  bool      `json:"current"`
	At       time.Time `json:"at"` // when it was pushed
}

// OpenShelf makes the folder if it is not there.
func OpenShelf(dir string) (*Shelf, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("flow: shelf of tools: %w", err)
	}
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("flow: shelf of tools: %w", err)
	}
	return &Shelf{absolute}, nil
}

// Stage unpacks a tool's folder, a tar archive, and checks it: paths within, files and folders alone, bounded, a manifest without faults. The
// manifest that it returns has the digest. Keep it with Keep, or Discard it.
func (s *Shelf) Stage(archive io.Reader) (*Staged, error) {
	dir, err := os.MkdirTemp(s.dir, ".stage")
	if err != nil {
		return nil, fmt.Errorf("flow: push a tool: %w", err)
	}
	staged := &Staged{shelf: s, dir: dir}
	if err := staged.unpack(archive); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: push a tool: %w", ErrInvalid, err), staged.Discard())
	}
	return staged, nil
}

// Staged is a tool that is unpacked and not yet on the shelf.
type Staged struct {
	Manifest Manifest
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
	left := int64(MaxToolBytes)
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
		case files >= maxToolFiles:
			return fmt.Errorf("it has more than %d files", maxToolFiles)
		case name == ".":
			continue
		case !filepath.IsLocal(name):
			return fmt.Errorf("%q leads out of the folder", header.Name)
		case header.Typeflag == tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case header.Typeflag != tar.TypeReg:
			return fmt.Errorf("%q is neither a file nor a folder; put the file itself there", header.Name)
		case header.Size > left:
			return fmt.Errorf("it has more than %d bytes", int64(MaxToolBytes))
		default:
			left -= header.Size
			err = unpackFile(root, name, fs.FileMode(header.Mode), reader)
		}
		if err != nil {
			return err
		}
	}
	if s.Manifest, err = ReadManifest(s.dir); err != nil {
		return err
	}
	digest, err := DigestDir(s.dir)
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
	return writeSynced(filepath.Join(s.dir, ManifestFile), data)
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

// Keep puts what is staged on the shelf, makes it the version in use, and returns its manifest as Engine.Replace takes it. The
// same files again are the same version.
func (s *Staged) Keep() (Manifest, error) {
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
		return Manifest{}, fmt.Errorf("flow: keep tool %s: %w", s.Manifest.Name, err)
	}
	return ReadManifest(place)
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
func (s *Shelf) Version(name, digest string) (Manifest, error) {
	at := short(digest)
	if !toolName.MatchString(name) || len(at) < 12 || strings.ContainsAny(at, "/.") {
		return Manifest{}, fmt.Errorf("%w: %q of tool %q is not a digest; give at least twelve digits of it", ErrInvalid, digest, name)
	}
	m, err := ReadManifest(filepath.Join(s.dir, name, at))
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, fmt.Errorf("%w: version %s of tool %s", ErrNotFound, at, name)
	}
	return m, err
}

// List returns all versions of all tools, or those of one, by name and the newest first.
func (s *Shelf) List(name string) ([]ShelvedTool, error) {
	pattern := filepath.Join(s.dir, "*", "current")
	if name != "" {
		if !toolName.MatchString(name) {
			return nil, fmt.Errorf("%w: %q is not a tool's name", ErrInvalid, name)
		}
		pattern = filepath.Join(s.dir, name, "current")
	}
	found, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("flow: shelf of tools: %w", err)
	}
	out := []ShelvedTool{}
	for _, file := range found {
		current, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("flow: shelf of tools: %w", err)
		}
		entries, err := os.ReadDir(filepath.Dir(file))
		if err != nil {
			return nil, fmt.Errorf("flow: shelf of tools: %w", err)
		}
		versions := []ShelvedTool{}
		for _, entry := range entries {
			if !entry.IsDir() {
				continue
			}
			m, err := ReadManifest(filepath.Join(filepath.Dir(file), entry.Name()))
			if err != nil {
				return nil, err
			}
			info, err := entry.Info()
			if err != nil {
				return nil, fmt.Errorf("flow: shelf of tools: %w", err)
			}
			versions = append(versions, ShelvedTool{m, entry.Name() == string(bytes.TrimSpace(current)), info.ModTime().UTC()})
		}
		slices.SortStableFunc(versions, func(a, b ShelvedTool) int { return b.At.Compare(a.At) })
		out = append(out, versions...)
	}
	return out, nil
}

// Current returns the manifests of the versions in use, by name: hand each to Tools.Exec.
func (s *Shelf) Current() ([]Manifest, error) {
	found, err := filepath.Glob(filepath.Join(s.dir, "*", "current"))
	if err != nil {
		return nil, fmt.Errorf("flow: shelf of tools: %w", err)
	}
	var out []Manifest
	var faults []error
	for _, file := range found {
		current, err := os.ReadFile(file)
		if err == nil {
			var m Manifest
			if m, err = ReadManifest(filepath.Join(filepath.Dir(file), string(bytes.TrimSpace(current)))); err == nil {
				out = append(out, m)
				continue
			}
		}
		faults = append(faults, err)
	}
	return out, errors.Join(faults...)
}

// PackTool writes a tool's folder as an archive that Stage takes.
func PackTool(dir string, to io.Writer) error {
	writer := tar.NewWriter(to)
	if err := writer.AddFS(os.DirFS(dir)); err != nil {
		return fmt.Errorf("flow: pack %s: %w", dir, err)
	}
	return writer.Close()
}
