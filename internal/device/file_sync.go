package device

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strconv"
)

// File is one file as the central file source has it.
type File struct {
	Path   string `json:"path" doc:"below the root"`
	Digest string `json:"digest" doc:"sha256:HEX of the content"`
	Mode   string `json:"mode,omitempty" doc:"octal permissions; default 0644"`
}

// FileSyncIn is what file.sync takes.
type FileSyncIn struct {
	Files  []File   `json:"files" doc:"what shall be there"`
	Mirror []string `json:"mirror,omitempty" doc:"folders in which nothing else may be"`
}

// FileSyncOut is what file.sync tells.
type FileSyncOut struct {
	Written   []string `json:"written" doc:"files that were new or different"`
	Removed   []string `json:"removed" doc:"files of mirrored folders that the source does not have"`
	Unchanged int      `json:"unchanged"`
	Bytes     int64    `json:"bytes"`
}

// FileSync makes the listed files what the source has. Codes: blob.not_found, blob.digest, blob.unreachable,
// path.outside, path.is_dir.
func FileSync(ctx context.Context, env Env, in FileSyncIn) (FileSyncOut, error) {
	return perform(ctx, env, "file.sync", in, func(ctx context.Context, c *call) (FileSyncOut, error) {
		out := FileSyncOut{Written: []string{}, Removed: []string{}}
		plan, err := c.compareFiles(in, &out)
		if err != nil {
			return out, err
		}
		if err := c.journal.save(slices.Concat(out.Written, out.Removed)...); err != nil {
			return out, err
		}
		for _, f := range plan {
			size, err := c.writeBlob(ctx, f)
			if err != nil {
				return out, err
			}
			out.Bytes += size
		}
		for _, p := range out.Removed {
			if err := c.root.Remove(p); err != nil {
				return out, err
			}
		}
		return out, nil
	})
}

type plannedFile struct {
	path, digits string
	mode         fs.FileMode
}

// compareFiles finds what to write and to remove, and changes nothing.
func (c *call) compareFiles(in FileSyncIn, out *FileSyncOut) ([]plannedFile, error) {
	var plan []plannedFile
	wanted := map[string]bool{}
	for _, f := range in.Files {
		p, err := local(f.Path)
		if err != nil {
			return nil, err
		}
		digits, err := hexDigest(f.Digest)
		if err != nil {
			return nil, err
		}
		mode, err := parseMode(f.Mode)
		if err != nil {
			return nil, err
		}
		if wanted[p] {
			return nil, fail("input.invalid", "file %q stands there twice", p)
		}
		wanted[p] = true
		have, haveMode, err := digestOf(c.root, p)
		if err != nil {
			return nil, err
		}
		if have == digits && haveMode == mode {
			out.Unchanged++
			continue
		}
		plan = append(plan, plannedFile{p, digits, mode})
		out.Written = append(out.Written, p)
	}
	for _, dir := range in.Mirror {
		dir, err := local(dir)
		if err != nil {
			return nil, err
		}
		below, err := walk(c.root, dir)
		if err != nil {
			return nil, err
		}
		for _, p := range below {
			info, err := c.root.Lstat(p)
			if err != nil {
				return nil, err
			}
			if !info.IsDir() && !wanted[p] {
				out.Removed = append(out.Removed, p)
			}
		}
	}
	return plan, nil
}

func (c *call) writeBlob(ctx context.Context, f plannedFile) (int64, error) {
	if err := need(c.Blobs != nil, "blob source", "set ZHIYUN_SERVER to the server's target"); err != nil {
		return 0, err
	}
	blob, err := c.Blobs.Open(ctx, "sha256:"+f.digits)
	if err != nil {
		return 0, err
	}
	defer blob.Close()
	if err := c.parents(f.path); err != nil {
		return 0, err
	}
	return put(c.root, f.path, &bounded{blob, c.MaxBlob, f.path}, f.mode, f.digits)
}

func parseMode(s string) (fs.FileMode, error) {
	if s == "" {
		return 0o644, nil
	}
	mode, err := strconv.ParseUint(s, 8, 32)
	if err != nil || mode > 0o777 {
		return 0, fail("input.invalid", "mode %q: give octal permissions up to 0777", s)
	}
	return fs.FileMode(mode), nil
}

// FileRestoreIn is what file.restore takes.
type FileRestoreIn struct {
	FileSyncIn
	Done  *FileSyncOut `json:"done,omitempty" doc:"the output of file.sync, when it is undone"`
	Purge bool         `json:"purge,omitempty" doc:"remove the listed files and mirrored folders, whoever wrote them"`
}

// FileRestore undoes the file.sync of the same key. With Purge it removes the listed files and the mirrored
// folders, which device.restore undoes.
func FileRestore(ctx context.Context, env Env, in FileRestoreIn) (Undone, error) {
	if !in.Purge {
		return undo(ctx, env, "file.sync")
	}
	in.Done = nil
	return perform(ctx, env, "file.restore", in, func(_ context.Context, c *call) (Undone, error) {
		paths := slices.Clone(in.Mirror)
		for _, f := range in.Files {
			paths = append(paths, f.Path)
		}
		return Undone{State: "removed"}, c.purgeAll(paths)
	})
}

func (c *call) purgeAll(paths []string) error {
	var faults []error
	for i, p := range paths {
		clean, err := local(p)
		faults, paths[i] = append(faults, err), path.Clean(clean)
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	for _, p := range paths {
		if err := c.purge(p); err != nil {
			return err
		}
	}
	return nil
}
