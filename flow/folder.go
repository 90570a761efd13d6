package flow

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Folder registers the tool that lies in a folder: its manifest, in ManifestFile, names a program of the folder or of the machine.
// What is wrong with the manifest is told here, and by Err.
func (t *Tools) Folder(dir string) error {
	m, err := ReadManifest(dir)
	if err != nil {
		t.fault("%w", err)
		return err
	}
	t.Exec(m)
	return nil
}

// Folders registers every tool below a folder of folders, as ReadManifests finds them.
func (t *Tools) Folders(parent string) error {
	found, err := ReadManifests(parent)
	if err != nil {
		t.fault("%w", err)
	}
	for _, m := range found {
		t.Exec(m)
	}
	return err
}

// ReadManifests reads the manifests of all tools below a folder of folders. Folders without a manifest, and names that begin with a dot,
// are passed over. With an error come the manifests that could be read.
func ReadManifests(parent string) ([]Manifest, error) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil, fmt.Errorf("flow: tools: %w", err)
	}
	var out []Manifest
	var faults []error
	for _, entry := range entries {
		if !entry.IsDir() || entry.Name()[0] == '.' {
			continue
		}
		m, err := ReadManifest(filepath.Join(parent, entry.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			faults = append(faults, err)
		default:
			out = append(out, m)
		}
	}
	return out, errors.Join(faults...)
}

// maxManifest bounds a manifest, in bytes.
const maxManifest = 1 << 20

// ReadManifest reads the manifest in a tool's folder. A field that no manifest has is an error: it was meant as something.
func ReadManifest(dir string) (Manifest, error) {
	path := filepath.Join(dir, ManifestFile)
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxManifest {
		err = fmt.Errorf("it has %d bytes, at most %d are read", info.Size(), maxManifest)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("flow: manifest of a tool: %w", err)
	}
	m, err := DecodeManifest(data)
	if err != nil {
		return Manifest{}, fmt.Errorf("flow: %s: %w", path, err)
	}
	if m.Dir, err = filepath.Abs(dir); err != nil {
		return Manifest{}, fmt.Errorf("flow: %s: %w", path, err)
	}
	return m, nil
}

// DecodeManifest reads a manifest as a program prints it. A field that no manifest has is an error.
func DecodeManifest(data []byte) (Manifest, error) {
	var m Manifest
	shape := struct {
		*manifestFields
		Timeout   Duration `json:"timeout"`
		Heartbeat Duration `json:"heartbeat"`
	}{manifestFields: (*manifestFields)(&m)}
	strict := json.NewDecoder(bytes.NewReader(data))
	strict.DisallowUnknownFields()
	err := strict.Decode(&shape)
	if err == nil && strict.More() {
		err = errors.New("something follows the object")
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("not a manifest: %w", err)
	}
	m.Timeout, m.Heartbeat = time.Duration(shape.Timeout), time.Duration(shape.Heartbeat)
	return m, m.Check()
}
