package center_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Whatever is pushed, no archive passes whose entries leave its folder.
func FuzzPackagePush(f *testing.F) {
	for _, name := range []string{"a", "../a", "a/../../b", "/a", "a//b", ""} {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
			f.Fatal(err)
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Bytes())
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		files, _, err := center.Inspect(bytes.NewReader(archive))
		if err != nil {
			return
		}
		for _, file := range files {
			if !filepath.IsLocal(file.Path) || file.Kind == center.EntryLink && !filepath.IsLocal(filepath.Join(filepath.Dir(file.Path), file.Target)) {
				t.Errorf("kept an entry outside: %+v", file)
			}
		}
	})
}

func BenchmarkMayCall(b *testing.B) {
	centers, err := center.New(center.Config{Store: store.NewMemory(), Dir: b.TempDir(), Approve: center.ApproveAtOnce})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 1000 {
		if _, err := centers.Permissions.Request(b.Context(), "m", fmt.Sprintf("s%d", i), "k", "bench", ""); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if !centers.Permissions.MayCall("m", "s500") {
			b.Fatal("no grant")
		}
	}
}
