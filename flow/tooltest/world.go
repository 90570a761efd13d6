package tooltest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// snapshot is what a world's folder holds: by path, the mode and the content of each file, or where a link leads.
func (s *subject) snapshot(w World) (map[string]string, error) {
	out := map[string]string{}
	err := filepath.WalkDir(w.Root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(w.Root, path)
		if err != nil || name == "." {
			return err
		}
		for _, ignored := range s.config.Ignore {
			if name == ignored || strings.HasPrefix(ignored, name+"/") && entry.IsDir() {
				if name == ignored {
					return fs.SkipDir
				}
				return nil // leads to what is ignored
			}
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		what := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(data)
			what += " " + hex.EncodeToString(sum[:8])
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what += " -> " + to
		}
		out[name] = what
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at the world: %w", err)
	}
	return out, nil
}

// place is a world and what it held when it was looked at.
type place struct {
	World
	s   *subject
	was map[string]string
}

// in makes a new world for part of a check, looks at it, and closes it behind the part.
func (s *subject) in(part func(*place) error) error {
	w, err := s.world()
	if err != nil {
		return err
	}
	defer w.Close()
	p := &place{World: w, s: s}
	if err := p.look(); err != nil {
		return err
	}
	return part(p)
}

// look remembers what the place holds now.
func (p *place) look() (err error) {
	p.was, err = p.s.snapshot(p.World)
	return err
}

// unchanged is an error that begins with what, and says how the place differs from what it was; nil if it does not.
func (p *place) unchanged(what string) error {
	is, err := p.s.snapshot(p.World)
	if err != nil {
		return err
	}
	if change := differ(p.was, is); change != "" {
		return fmt.Errorf("%s: %s", what, change)
	}
	return nil
}

// differ says how two snapshots differ; nothing if they do not.
func differ(before, after map[string]string) string {
	var lines []string
	for name, was := range before {
		if is, there := after[name]; !there {
			lines = append(lines, "- "+name)
		} else if is != was {
			lines = append(lines, "~ "+name+" ("+was+" became "+is+")")
		}
	}
	for name := range after {
		if _, there := before[name]; !there {
			lines = append(lines, "+ "+name)
		}
	}
	slices.Sort(lines)
	if len(lines) > 10 {
		lines = append(lines[:10], fmt.Sprintf("and %d more", len(lines)-10))
	}
	return strings.Join(lines, ", ")
}

// same says whether two JSON documents say the same.
func same(a, b json.RawMessage) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return bytes.Equal(a, b)
	}
	left, _ := json.Marshal(x)
	right, _ := json.Marshal(y)
	return bytes.Equal(left, right)
}
