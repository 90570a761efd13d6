//go:build !unix

package table

import "os"

// load reads the file at path.
func load(path string) (data []byte, release func(), err error) {
	data, err = os.ReadFile(path)
	return data, func() {}, err
}
