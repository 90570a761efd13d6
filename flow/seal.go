package flow

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// ManifestFile is the name under which a manifest lies in its tool's folder.
const ManifestFile = "tool.json"

// DigestDir returns the digest of a tool's folder: of the path, the executable bit and the content of each file, the manifest's without its own
// digest and spaces. A link or anything else that is not a file or a folder is an error, since what it leads to may change.
func DigestDir(dir string) (string, error) {
	digest, _, err := digestDir(dir)
	return digest, err
}

// digestDir returns the state of the folder as well, nil if a file is so young that another change might not show.
func digestDir(dir string) (string, []string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", nil, fmt.Errorf("flow: digest of a tool: %w", err)
	}
	defer root.Close()
	var paths []string
	err = fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return nil
		case !entry.Type().IsRegular():
			return fmt.Errorf("%s is neither a file nor a folder; put the file itself there", path)
		}
		paths = append(paths, path)
		return nil
	})
	slices.Sort(paths)
	whole := sha256.New()
	state := []string{}
	young := false
	for _, path := range paths {
		if err != nil {
			break
		}
		var sum string
		var info fs.FileInfo
		if sum, info, err = digestFile(root, path); err == nil {
			fmt.Fprintf(whole, "%s %t %q\n", sum, path != ManifestFile && info.Mode()&0o111 != 0, path)
			state = append(state, identity(path, info))
			young = young || time.Since(info.ModTime()) < time.Second
		}
	}
	if err != nil {
		return "", nil, fmt.Errorf("flow: digest of %s: %w", dir, err)
	}
	if slices.Sort(state); young {
		state = nil
	}
	return "sha256:" + hex.EncodeToString(whole.Sum(nil)), state, nil
}

func digestFile(root *os.Root, path string) (string, fs.FileInfo, error) {
	file, err := root.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", nil, err
	}
	sum := sha256.New()
	if path == ManifestFile {
		err = digestManifest(sum, file)
	} else {
		_, err = io.Copy(sum, file)
	}
	if err != nil {
		return "", nil, err
	}
	return hex.EncodeToString(sum.Sum(nil)), info, nil
}

// digestManifest writes a manifest as it would be without its digest.
func digestManifest(sum io.Writer, file io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(file, maxManifest+1))
	if err != nil {
		return err
	}
	m, err := DecodeManifest(data)
	if err != nil {
		return err
	}
	m.Digest = ""
	return json.NewEncoder(sum).Encode(m)
}

// seal knows what a folder was like when its digest was right. Files are read again when one of them has changed its size, its time of change
// or its place on the disk, which whoever writes to it cannot avoid; a folder is listed each time, so that nothing can be added.
type seal struct {
	mu    sync.Mutex // guards what follows
	state []string   // nil: to be read
}

// check returns an error if the folder has another digest.
func (s *seal) check(dir, want string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != nil {
		if now, err := folderState(dir); err == nil && slices.Equal(now, s.state) {
			return nil
		}
		s.state = nil
	}
	got, state, err := digestDir(dir)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("the files in %s have the digest %s, and its manifest says %s; push the tool again, or mend the manifest", dir, got, want)
	}
	s.state = state
	return nil
}

func folderState(dir string) ([]string, error) {
	state := []string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative := strings.TrimPrefix(path[len(dir):], "/")
		if !entry.Type().IsRegular() {
			return errors.New("not a file")
		}
		info, err := entry.Info()
		if err == nil {
			state = append(state, identity(filepath.ToSlash(relative), info))
		}
		return err
	})
	slices.Sort(state)
	return state, err
}
