// Package folder keeps a device as two things on disk say: a file of YAML or JSON with its declared state, and a folder
// with what its files should hold. It is all that a drift agent without a control plane needs:
//
//	source := folder.Source{State: "desired.yaml", Files: "source"}
//	agent, err := drift.New(drift.Config{
//		Device: "d1", Desired: source, Collectors: []drift.Collector{drift.Files("/")},
//		Mode: drift.Repair, Repairer: &folder.Repairer{Source: source, Root: "/"},
//	})
//
// The declaration has the JSON form of drift.State. A regular file that is declared without a digest gets that of the
// file of the same path in the folder, so that a declaration may be as short as "files: {etc/app.conf: {}}".
package folder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"

	"github.com/zhiyun-ops/zhiyun/drift"
)

// Source is a drift.Desired. It is read anew each time it is asked, which an agent does with each rescan.
type Source struct {
	State string // path of the declaration
	Files string // folder with the content of declared files; empty: digests must be declared
}

// Changed implements drift.Desired: it never tells.
func (s Source) Changed() <-chan struct{} { return nil }

// Desired implements drift.Desired. The generation is a digest of what was read.
func (s Source) Desired(ctx context.Context) (drift.State, string, error) {
	text, err := os.ReadFile(s.State)
	if err != nil {
		return drift.State{}, "", fmt.Errorf("folder: read the declaration: %w", err)
	}
	state, err := Parse(text)
	if err != nil {
		return drift.State{}, "", fmt.Errorf("folder: %s: %w", s.State, err)
	}
	if s.Files != "" {
		if err := s.digests(ctx, state); err != nil {
			return drift.State{}, "", err
		}
	}
	canonical, err := json.Marshal(state)
	if err != nil {
		return drift.State{}, "", fmt.Errorf("folder: %s: %w", s.State, err)
	}
	sum := sha256.Sum256(canonical)
	return state, hex.EncodeToString(sum[:6]), nil
}

// digests fills in those that are not declared, from the folder.
func (s Source) digests(ctx context.Context, state drift.State) error {
	root, err := os.OpenRoot(s.Files)
	if err != nil {
		return fmt.Errorf("folder: open the source folder: %w", err)
	}
	defer root.Close()
	for name, f := range state.Files {
		if f.Digest != "" || f.Type != drift.Regular || f.Link != "" {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		content, err := root.ReadFile(filepath.FromSlash(name))
		if errors.Is(err, fs.ErrNotExist) && f.Mode != 0 {
			continue // only its mode is declared
		}
		if err != nil {
			return fmt.Errorf("folder: %s has neither a digest nor content in the source folder: %w", name, err)
		}
		f.Digest = drift.Digest(content)
		state.Files[name] = f
	}
	return nil
}

// Parse reads a declaration from YAML or JSON. A field that it does not know is an error, and so is a path that is not
// relative and clean.
func Parse(text []byte) (drift.State, error) {
	var document any
	if err := yaml.Unmarshal(text, &document); err != nil {
		return drift.State{}, fmt.Errorf("it is neither YAML nor JSON: %w", err)
	}
	plain, err := json.Marshal(document)
	if err != nil {
		return drift.State{}, fmt.Errorf("it has a key that is no string: %w", err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(plain)))
	decoder.DisallowUnknownFields()
	var state drift.State
	if err := decoder.Decode(&state); err != nil {
		return drift.State{}, fmt.Errorf("it is no declared state: %w", err)
	}
	var faults []error
	for name := range state.Files {
		if !fs.ValidPath(name) || name == "." {
			faults = append(faults, fmt.Errorf("path %q is not relative to the root and clean; write it as %q", name, clean(name)))
		}
	}
	return state, errors.Join(faults...)
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// Repairer is a drift.Repairer of files: it writes what Source says, whole or not at all, and never outside Root. It
// leaves alone what the declaration says nothing about: the mode of a file whose mode is not declared stays. What must
// not be there it moves aside, to the same path below Aside, and does not delete. Processes and ports it cannot repair.
type Repairer struct {
	Source Source
	Root   string
	Aside  string // relative to Root; default ".drift-aside"
}

// Repair implements drift.Repairer.
func (r *Repairer) Repair(_ context.Context, f drift.Finding) error {
	switch f.Kind {
	case drift.KindProcess, drift.KindPort:
		return fmt.Errorf("folder: %s %s: %w", f.Kind, f.Subject, drift.ErrCannotRepair)
	}
	root, err := os.OpenRoot(r.Root)
	if err != nil {
		return fmt.Errorf("folder: repair %s: %w", f.Subject, err)
	}
	defer root.Close()
	if err := r.repair(root, f); err != nil {
		return fmt.Errorf("folder: repair %s: %w", f.Subject, err)
	}
	return nil
}

func (r *Repairer) repair(root *os.Root, f drift.Finding) error {
	name := filepath.FromSlash(f.Subject)
	if f.File == nil {
		return r.aside(root, name)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	have, err := root.Lstat(name)
	there := err == nil
	want := *f.File
	sort := fs.FileMode(0)
	switch {
	case want.Link != "":
		sort = fs.ModeSymlink
	case want.Type == drift.Dir:
		sort = fs.ModeDir
	}
	if there && have.Mode().Type() != sort {
		if err := r.aside(root, name); err != nil {
			return err
		}
		there = false
	}
	switch {
	case want.Link != "":
		return place(root, name, func(temp string) error { return root.Symlink(filepath.FromSlash(want.Link), temp) })
	case want.Type == drift.Dir && !there:
		if err := root.Mkdir(name, 0o755); err != nil {
			return err
		}
	case want.Type == drift.Regular && want.Digest != "" && (!there || contains(f.Fields, drift.FieldContent)):
		mode := fs.FileMode(0o644)
		if there {
			mode = have.Mode()
		}
		if want.Mode != 0 {
			mode = want.Mode.FileMode()
		}
		return r.write(root, name, want, mode)
	}
	if want.Mode == 0 {
		return nil
	}
	return root.Chmod(name, want.Mode.FileMode())
}

func contains(fields []string, field string) bool {
	for _, have := range fields {
		if have == field {
			return true
		}
	}
	return false
}

// write puts the declared content in place, if the source still holds it.
func (r *Repairer) write(root *os.Root, name string, want drift.File, mode fs.FileMode) error {
	source, err := os.OpenRoot(r.Source.Files)
	if err != nil {
		return err
	}
	defer source.Close()
	content, err := source.ReadFile(name)
	if err != nil {
		return err
	}
	if have := drift.Digest(content); strings.TrimPrefix(have, "sha256:") != strings.TrimPrefix(want.Digest, "sha256:") {
		return fmt.Errorf("the source folder holds %s, declared is %s; bring them in line", have, want.Digest)
	}
	return place(root, name, func(temp string) error {
		file, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, strings.NewReader(string(content)))
		return errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
	})
}

// place makes something under another name and moves it over name.
func place(root *os.Root, name string, make func(temp string) error) error {
	temp := filepath.Join(filepath.Dir(name), ".drift-"+filepath.Base(name))
	if err := root.RemoveAll(temp); err != nil {
		return err
	}
	if err := make(temp); err != nil {
		return errors.Join(err, root.RemoveAll(temp))
	}
	if err := root.Rename(temp, name); err != nil {
		return errors.Join(err, root.RemoveAll(temp))
	}
	return nil
}

// aside moves what is at name out of the way.
func (r *Repairer) aside(root *os.Root, name string) error {
	folder := r.Aside
	if folder == "" {
		folder = ".drift-aside"
	}
	if _, err := root.Lstat(name); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil // it went with what it lay in
	}
	to := filepath.Join(filepath.FromSlash(folder), name)
	if err := root.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if err := root.RemoveAll(to); err != nil {
		return err
	}
	return root.Rename(name, to)
}
