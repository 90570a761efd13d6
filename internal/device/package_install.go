package device

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/zhiyun-ops/zhiyun/internal/inflate"
)

// PackageInstallIn is what package.install takes.
type PackageInstallIn struct {
	Name    string `json:"name" doc:"the package"`
	Version string `json:"version" doc:"its version"`
	Digest  string `json:"digest" doc:"sha256:HEX of the tar or tar.gz"`
}

// PackageInstallOut is what package.install tells.
type PackageInstallOut struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Digest   string `json:"digest"`
	Path     string `json:"path" doc:"folder of this version, below the root"`
	Previous string `json:"previous,omitempty" doc:"version folder that was current before"`
	Fetched  bool   `json:"fetched" doc:"false if the version was there already"`
	Files    int    `json:"files,omitempty"`
	Bytes    int64  `json:"bytes,omitempty"`
}

// PackageInstall fetches a package by digest, unpacks it to pkg/NAME/VERSION-DIGEST8 and makes it current in
// one motion. Codes: blob.not_found, blob.digest, blob.unreachable, blob.too_large, package.unsafe,
// package.damaged, package.too_large.
func PackageInstall(ctx context.Context, env Env, in PackageInstallIn) (PackageInstallOut, error) {
	return perform(ctx, env, "package.install", in, func(ctx context.Context, c *call) (out PackageInstallOut, err error) {
		digits, err := hexDigest(in.Digest)
		if err := errors.Join(err, name("package", in.Name), name("version", in.Version)); err != nil {
			return out, err
		}
		version := in.Version + "-" + digits[:8]
		dir := path.Join("pkg", in.Name, version)
		current := path.Join("pkg", in.Name, "current")
		out = PackageInstallOut{Name: in.Name, Version: in.Version, Digest: "sha256:" + digits, Path: dir}

		absent, err := c.absent(dir)
		if err != nil {
			return out, err
		}
		if err := c.journal.save(dir, current); err != nil {
			return out, err
		}
		if out.Previous, err = c.root.Readlink(current); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return out, fail("package.damaged", "%s is not a link: %v", current, err)
		}
		if absent {
			if err := c.unpackTo(ctx, dir, digits, &out); err != nil {
				return out, err
			}
		}
		if out.Previous != version {
			err = link(c.root, current, version)
		}
		return out, err
	})
}

// unpackTo makes the version's folder appear as a whole, once its digest was seen to be right.
func (c *call) unpackTo(ctx context.Context, dir, digits string, out *PackageInstallOut) error {
	if err := need(c.Blobs != nil, "blob source", "set ZHIYUN_SERVER to the server's target"); err != nil {
		return err
	}
	blob, err := c.Blobs.Open(ctx, "sha256:"+digits)
	if err != nil {
		return err
	}
	defer blob.Close()
	if err := c.parents(dir); err != nil {
		return err
	}
	partial := tempOf(dir) // a killed call's half is removed when dir is put back
	if err := c.root.RemoveAll(partial); err != nil {
		return err
	}
	if err := c.root.Mkdir(partial, 0o755); err != nil {
		return err
	}
	moment()
	sub, err := c.root.OpenRoot(partial)
	if err != nil {
		return err
	}
	hash := sha256.New()
	content := io.TeeReader(&bounded{blob, c.MaxBlob, "sha256:" + digits}, hash)
	out.Fetched = true
	out.Files, out.Bytes, err = unpack(sub, content, inflate.Limit{Bytes: c.MaxUnpacked, Ratio: c.MaxRatio})
	err = errors.Join(err, sub.Close())
	if err == nil || errors.Is(err, &Error{Code: "package.damaged"}) { // damaged on its way, or when it was made?
		if _, rest := io.Copy(io.Discard, content); rest != nil {
			return rest
		}
		if have := hex.EncodeToString(hash.Sum(nil)); have != digits {
			return later("blob.digest", "the server sent sha256:%s for sha256:%s", have, digits)
		}
	}
	if err != nil {
		return err
	}
	moment()
	if err := c.root.Rename(partial, dir); err != nil {
		return err
	}
	moment()
	return sync(c.root, path.Dir(dir))
}

// PackageRemoveIn is what package.remove takes: the input of package.install and, to undo it, nothing more.
type PackageRemoveIn struct {
	PackageInstallIn
	Done  *PackageInstallOut `json:"done,omitempty" doc:"the output of package.install, when it is undone"`
	Purge bool               `json:"purge,omitempty" doc:"remove every version of the package, whoever installed it; version and digest do not count"`
}

// PackageRemove undoes the package.install of the same key: the version that was current before is current
// again, and the new one is gone if it was not there. With Purge it takes the package away whoever installed
// it, which device.restore undoes.
func PackageRemove(ctx context.Context, env Env, in PackageRemoveIn) (Undone, error) {
	if !in.Purge {
		return undo(ctx, env, "package.install")
	}
	in.Done = nil
	return perform(ctx, env, "package.remove", in, func(_ context.Context, c *call) (Undone, error) {
		if err := name("package", in.Name); err != nil {
			return Undone{}, err
		}
		return Undone{State: "removed"}, c.purge(path.Join("pkg", in.Name))
	})
}

// purge moves a path into the journal and removes the folders above it that are empty then, but for those
// right below the root.
func (c *call) purge(p string) error {
	absent, err := c.absent(p)
	if err != nil || absent {
		return err
	}
	if err := c.journal.take(p); err != nil {
		return err
	}
	for dir := path.Dir(p); strings.Contains(dir, "/"); dir = path.Dir(dir) {
		if c.root.Remove(dir) != nil {
			break // not empty
		}
	}
	return nil
}
