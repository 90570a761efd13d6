package bench

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/zhiyun-ops/zhiyun/drift"
)

// drift measures looking at a device of files of 4 KiB, ten to a folder: everything, again, and the comparison.
func (s *suite) drift(ctx context.Context) error {
	n := s.scaled(10_000)
	s.Progress(fmt.Sprintf("drift: %d files", n))
	root := filepath.Join(s.dir, "device")
	content := make([]byte, 4096)
	state := drift.State{Files: make(map[string]drift.File, n)}
	for i := range n {
		name := fmt.Sprintf("d%d/e%d/f%d", i/1000, i/10, i)
		if i%10 == 0 {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
				return err
			}
		}
		copy(content, name)
		if err := os.WriteFile(filepath.Join(root, name), content, 0o644); err != nil {
			return err
		}
		state.Files[name] = drift.File{Digest: drift.Digest(content), Mode: 0o644}
	}
	files := float64(n)
	scan, err := s.each(func(int) error { return look(ctx, drift.Files(root), state) })
	if err != nil {
		return err
	}
	floor, err := s.each(func(int) error { sha256.Sum256(content); return nil })
	if err != nil {
		return err
	}
	s.add("drift.scan", scan/files/1e3, "us/file", floor/1e3, "sha256 of the bytes, nothing read")

	collector := drift.Files(root)
	for range 3 { // hashes of files younger than a tick of the clock are not kept
		if err := look(ctx, collector, state); err != nil {
			return err
		}
	}
	again, err := s.each(func(int) error { return look(ctx, collector, state) })
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(state.Files))
	floor, err = s.each(func(i int) error {
		_, err := os.Lstat(filepath.Join(root, names[i%len(names)]))
		return err
	})
	if err != nil {
		return err
	}
	s.add("drift.rescan", again/files/1e3, "us/file", floor/1e3, "lstat of each")
	return s.compare(state)
}

func look(ctx context.Context, collector drift.Collector, want drift.State) error {
	_, err := collector.Collect(ctx, want, nil)
	return err
}

func (s *suite) compare(want drift.State) error {
	live := drift.State{Files: maps.Clone(want.Files)}
	files := float64(len(want.Files))
	ours, err := s.each(func(int) error {
		if found := drift.Compare(want, live); len(found) != 0 {
			return fmt.Errorf("equal states differ: %v", found[0])
		}
		return nil
	})
	if err != nil {
		return err
	}
	floor, err := s.each(func(int) error {
		for name, file := range want.Files {
			if have, ok := live.Files[name]; !ok || have.Digest != file.Digest || have.Mode != file.Mode {
				return fmt.Errorf("%s differs", name)
			}
		}
		return nil
	})
	s.add("drift.compare", ours/files, "ns/file", floor/files, "two plain maps")
	return err
}
