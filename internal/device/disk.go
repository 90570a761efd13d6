package device

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// own is the folder below the root that belongs to the tools themselves.
const own = "var/zhiyun"

// Set by tests alone. reached hears of each moment at which a kill would leave something half done; planted
// names a fault that the tests have to find.
var (
	reached func()
	planted string
)

// moment marks such a moment.
func moment() {
	if reached != nil {
		reached()
	}
}

// local cleans a path that came from outside and refuses one that leaves the root or enters the tools' folder.
func local(p string) (string, error) {
	clean := path.Clean(p)
	switch {
	case p == "" || clean == "." || !filepath.IsLocal(filepath.FromSlash(p)):
		return "", fail("path.outside", "path %q is not below the device's root; give a relative path without ..", p)
	case clean == own || strings.HasPrefix(clean, own+"/") || strings.HasPrefix(own, clean+"/"):
		return "", fail("path.outside", "path %q belongs to the agent", p)
	}
	return clean, nil
}

// name checks a package's or version's name.
func name(kind, s string) error {
	bad := s == "" || len(s) > 100 || s[0] == '.' || s == "current"
	for _, r := range s {
		bad = bad || !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-+", r))
	}
	if bad {
		return fail("input.invalid", "%s %q: use letters, digits, dot, dash, underscore and plus, 1 to 100 of them", kind, s)
	}
	return nil
}

// hexDigest returns the 64 hex digits of "sha256:HEX" or "HEX".
func hexDigest(digest string) (string, error) {
	digits := strings.TrimPrefix(digest, "sha256:")
	if raw, err := hex.DecodeString(digits); err != nil || len(raw) != sha256.Size || digits != strings.ToLower(digits) {
		return "", fail("input.invalid", "digest %q is not sha256: and 64 lower-case hex digits", digest)
	}
	return digits, nil
}

// put writes a file in one motion: it is there as a whole, durable, or as it was. A want that is not empty is
// the digest that the content must have.
func put(root *os.Root, p string, content io.Reader, mode fs.FileMode, want string) (int64, error) {
	if info, err := root.Lstat(p); err == nil && info.IsDir() {
		return 0, fail("path.is_dir", "%s is a folder; a file cannot take its place", p)
	}
	temp := tempOf(p)
	if err := root.RemoveAll(temp); err != nil {
		return 0, err
	}
	file, err := root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	moment()
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, hash), content)
	moment()
	if err == nil && want != "" && hex.EncodeToString(hash.Sum(nil)) != want {
		err = later("blob.digest", "%s: content has digest sha256:%x, want sha256:%s", p, hash.Sum(nil), want)
	}
	if err == nil {
		err = errors.Join(file.Chmod(mode), file.Sync())
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = root.Rename(temp, p)
	}
	if err != nil {
		root.Remove(temp)
		return 0, err
	}
	moment()
	return size, sync(root, path.Dir(p))
}

// tempOf is where what will be p stands until it is whole.
func tempOf(p string) string { return path.Join(path.Dir(p), ".zhiyun-"+path.Base(p)+".new") }

// link makes p a symlink to target in one motion.
func link(root *os.Root, p, target string) error {
	temp := tempOf(p)
	if err := root.RemoveAll(temp); err != nil {
		return err
	}
	if err := root.Symlink(target, temp); err != nil {
		return err
	}
	moment()
	if err := root.Rename(temp, p); err != nil {
		root.Remove(temp)
		return err
	}
	moment()
	return sync(root, path.Dir(p))
}

// sync makes a folder's entries durable.
func sync(root *os.Root, dir string) error {
	file, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// digestOf returns the hex digest of a file, "" if there is no regular file.
func digestOf(root *os.Root, p string) (string, fs.FileMode, error) {
	info, err := root.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	file, err := root.Open(p)
	if err != nil {
		return "", 0, err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(hash.Sum(nil)), info.Mode().Perm(), nil
}

// walk lists what is below dir, dir itself left out, parents before children.
func walk(root *os.Root, dir string) ([]string, error) {
	var paths []string
	err := fs.WalkDir(root.FS(), dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if p != dir {
			paths = append(paths, p)
		}
		return nil
	})
	return paths, err
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
