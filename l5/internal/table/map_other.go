//go:build !unix

package table

import "os"

// load reads the file at path.
func load(path string) (data []byte, release func(), err error) {
	data, err = os.ReadFile(path)
	return data, func() {}, err
}

// ours reports whether a file belongs to this process's own user.
func ours(os.FileInfo) bool { return true }
