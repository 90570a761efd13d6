package center

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// Files is the central file source: paths in namespaces, each with a content and a mode.
type Files struct {
	shelf shelf[File]
	blobs *Blobs
	now   func() time.Time
}

// File is one path of the source.
type File struct {
	Namespace string    `json:"namespace"`
	Path      string    `json:"path"`
	Digest    string    `json:"digest"`
	Size      int64     `json:"size"`
	Mode      uint32    `json:"mode"`
	PushedBy  string    `json:"pushed_by"`
	PushedAt  time.Time `json:"pushed_at"`
}

// Push keeps content under namespace and path. Mode 0 means 0644. The same content and mode again change nothing.
func (f *Files) Push(ctx context.Context, namespace, name string, mode fs.FileMode, content io.Reader, actor string) (File, error) {
	if err := firstOf(checkName("namespace", namespace), checkPath("path", name), checkActor(actor)); err != nil {
		return File{}, err
	}
	if mode&^0o777 != 0 {
		return File{}, fault("mode", fmt.Sprintf("%o", uint32(mode)), "give permission bits alone, as in 0644")
	}
	if mode == 0 {
		mode = 0o644
	}
	digest, size, err := f.blobs.Put(ctx, content, "")
	if err != nil {
		return File{}, fmt.Errorf("push %s/%s: %w", namespace, name, err)
	}
	one := File{Namespace: namespace, Path: name, Digest: digest, Size: size, Mode: uint32(mode), PushedBy: actor, PushedAt: f.now().UTC()}
	done, _, err := f.shelf.change(ctx, namespace+"/"+name, func(old File, exists bool) (File, verdict, error) {
		if exists && old.Digest == one.Digest && old.Mode == one.Mode {
			return old, keep, nil
		}
		return one, write, nil
	})
	return done.value, err
}

// Get returns one path, or ErrNotFound.
func (f *Files) Get(ctx context.Context, namespace, name string) (File, error) {
	if err := firstOf(checkName("namespace", namespace), checkPath("path", name)); err != nil {
		return File{}, err
	}
	one, err := f.shelf.must(ctx, namespace+"/"+name)
	return one.value, err
}

// Delete removes one path; its content stays as a blob. Nothing happens if it is absent.
func (f *Files) Delete(ctx context.Context, namespace, name string) error {
	if err := firstOf(checkName("namespace", namespace), checkPath("path", name)); err != nil {
		return err
	}
	_, _, err := f.shelf.change(ctx, namespace+"/"+name, func(old File, _ bool) (File, verdict, error) { return old, remove, nil })
	return err
}

// List returns the paths of a namespace, or of all for an empty one, in order.
func (f *Files) List(ctx context.Context, namespace string, page Page) ([]File, string, error) {
	sub := ""
	if namespace != "" {
		if err := checkName("namespace", namespace); err != nil {
			return nil, "", err
		}
		sub = namespace + "/"
	}
	all, err := f.shelf.list(ctx, sub)
	if err != nil {
		return nil, "", err
	}
	return cut(all, page, nil)
}

// Mirrored is a file and where it goes below the folder that mirrors it.
type Mirrored struct {
	File
	Relative string `json:"relative"`
}

// Resolve returns what a source names: "namespace/path" of a file gives that file, with Relative "."; of a
// folder, or a namespace alone, all files below it. Nothing there is ErrNotFound: a mirror of nothing would
// delete what it mirrors to.
func (f *Files) Resolve(ctx context.Context, source string) ([]Mirrored, error) {
	namespace, name, _ := strings.Cut(strings.TrimSuffix(source, "/"), "/")
	if err := checkName("source", namespace); err != nil {
		return nil, err
	}
	if name != "" {
		if err := checkPath("source", name); err != nil {
			return nil, err
		}
	}
	all, err := f.shelf.list(ctx, path.Join(namespace, name))
	if err != nil {
		return nil, err
	}
	var out []Mirrored
	for _, one := range all {
		if one.value.Namespace != namespace {
			continue
		}
		if one.value.Path == name {
			return []Mirrored{{File: one.value, Relative: "."}}, nil
		}
		if name == "" {
			out = append(out, Mirrored{one.value, one.value.Path})
		} else if rest, below := strings.CutPrefix(one.value.Path, name+"/"); below {
			out = append(out, Mirrored{one.value, rest})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: source %q; push it with `zhiyun file push %s FILE`", ErrNotFound, source, source)
	}
	return out, nil
}
