package center

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/inflate"
)

// Packages is the package store: archives under name and version. A version, once pushed, never changes.
type Packages struct {
	shelf shelf[Package]
	blobs *Blobs
	now   func() time.Time
	limit inflate.Limit
}

// Package is one pushed version.
type Package struct {
	Name     string    `json:"name"`
	Version  string    `json:"version"`
	Digest   string    `json:"digest"`  // of the archive, as pushed; its content is the blob of that digest
	Format   string    `json:"format"`  // tar or tar.gz
	Size     int64     `json:"size"`    // of the archive
	Entries  int       `json:"entries"` // how many
	Listing  string    `json:"listing"` // digest of the blob that holds the list of entries as JSON
	PushedBy string    `json:"pushed_by"`
	PushedAt time.Time `json:"pushed_at"`

	// Files lists the entries in path order. Get fills it, List does not.
	Files []PackageFile `json:"files,omitempty"`
}

// Push reads a tar or tar.gz archive once, to its end, and keeps it under name and version. The same archive
// again changes nothing and returns what is there; another archive under the same version is ErrTaken. Paths
// that leave the package, setuid bits and device files are refused.
func (p *Packages) Push(ctx context.Context, name, version string, archive io.Reader, actor string) (Package, error) {
	if err := firstOf(checkName("package", name), checkVersion("version", version), checkActor(actor)); err != nil {
		return Package{}, err
	}
	draft, err := p.blobs.draft(ctx)
	if err != nil {
		return Package{}, err
	}
	defer draft.discard()
	files, format, err := inspect(io.TeeReader(archive, draft), p.limit)
	if err != nil {
		return Package{}, fmt.Errorf("push %s %s: %w", name, version, err)
	}
	listing, err := json.Marshal(files)
	if err != nil {
		return Package{}, fmt.Errorf("push %s %s: %w", name, version, err)
	}
	one := Package{Name: name, Version: version, Format: format, Entries: len(files), PushedBy: actor, PushedAt: p.now().UTC()}
	if one.Digest, one.Size, err = draft.keep(); err != nil {
		return Package{}, err
	}
	if one.Listing, _, err = p.blobs.Put(ctx, bytes.NewReader(listing), ""); err != nil {
		return Package{}, err
	}
	done, _, err := p.shelf.change(ctx, name+"/"+version, func(old Package, exists bool) (Package, verdict, error) {
		switch {
		case !exists:
			return one, write, nil
		case old.Digest == one.Digest:
			return old, keep, nil
		}
		return old, keep, fmt.Errorf("%w: package %s %s has digest %s, this archive has %s; push it as another version",
			ErrTaken, name, version, old.Digest, one.Digest)
	})
	if err != nil {
		return Package{}, err
	}
	done.value.Files = files
	return done.value, nil
}

// Get returns one version with its entries, or ErrNotFound.
func (p *Packages) Get(ctx context.Context, name, version string) (Package, error) {
	if err := firstOf(checkName("package", name), checkVersion("version", version)); err != nil {
		return Package{}, err
	}
	one, err := p.shelf.must(ctx, name+"/"+version)
	if err != nil {
		return Package{}, err
	}
	listing, err := p.blobs.Read(ctx, one.value.Listing)
	if err != nil {
		return Package{}, fmt.Errorf("entries of package %s %s: %w", name, version, err)
	}
	if err := json.Unmarshal(listing, &one.value.Files); err != nil {
		return Package{}, fmt.Errorf("entries of package %s %s: %w", name, version, err)
	}
	return one.value, nil
}

// List returns the versions of one package, or of all for an empty name, in order of name and version.
func (p *Packages) List(ctx context.Context, name string, page Page) ([]Package, string, error) {
	sub := ""
	if name != "" {
		if err := checkName("package", name); err != nil {
			return nil, "", err
		}
		sub = name + "/"
	}
	all, err := p.shelf.list(ctx, sub)
	if err != nil {
		return nil, "", err
	}
	return cut(all, page, nil)
}

// firstOf returns the first fault.
func firstOf(faults ...error) error {
	for _, err := range faults {
		if err != nil {
			return err
		}
	}
	return nil
}
