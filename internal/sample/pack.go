package sample

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"time"
)

// DefaultSettings is the configuration that the package brings along.
const DefaultSettings = `# capacity of one instance: requests per second, how many at a time, how many may wait
rate: 100
workers: 2
greeting: hello
`

// initScript prepares a device; undoScript takes that back. They may be run again.
const (
	initScript = `#!/bin/sh
set -e
mkdir -p "$ZHIYUN_ROOT/data/sample"
echo "$ZHIYUN_DEVICE" > "$ZHIYUN_ROOT/data/sample/device"
echo "prepared $ZHIYUN_DEVICE"
`
	undoScript = `#!/bin/sh
set -e
rm -rf "$ZHIYUN_ROOT/data/sample"
echo "cleaned $ZHIYUN_DEVICE"
`
)

// Pack returns the module's package as a tar: bin/sample (the executable at path), scripts/init, scripts/undo
// and etc/sample.yaml. The same executable gives the same bytes, so the same digest. Close ends the reading.
func Pack(path string) (io.ReadCloser, error) {
	exe, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("sample: pack: %w", err)
	}
	info, err := exe.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	if err != nil {
		exe.Close()
		return nil, fmt.Errorf("sample: pack: %w", err)
	}
	// Headers and small files are written to memory; the executable is streamed between them.
	var head, rest bytes.Buffer
	w := tar.NewWriter(&head)
	err = w.WriteHeader(header("bin/sample", 0o755, info.Size()))
	if err == nil {
		err = small(&rest, info.Size())
	}
	if err != nil {
		exe.Close()
		return nil, fmt.Errorf("sample: pack: %w", err)
	}
	body := io.LimitReader(exe, info.Size())
	return &packed{io.MultiReader(&head, body, &rest), exe}, nil
}

type packed struct {
	io.Reader
	io.Closer
}

func header(name string, mode, size int64) *tar.Header {
	return &tar.Header{Name: name, Mode: mode, Size: size, Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
}

// small writes the padding after size bytes, the small files and the end of the archive.
func small(out *bytes.Buffer, size int64) error {
	const block = 512
	out.Write(make([]byte, (block-size%block)%block))
	w := tar.NewWriter(out)
	for _, f := range []struct {
		name, content string
		mode          int64
	}{
		{"scripts/init", initScript, 0o755},
		{"scripts/undo", undoScript, 0o755},
		{"etc/sample.yaml", DefaultSettings, 0o644},
	} {
		if err := w.WriteHeader(header(f.name, f.mode, int64(len(f.content)))); err != nil {
			return err
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			return err
		}
	}
	return w.Close()
}
