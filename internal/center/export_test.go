package center

import (
	"io"

	"github.com/zhiyun-ops/zhiyun/internal/inflate"
)

// Inspect is what Push does to an archive before anything is kept.
func Inspect(archive io.Reader) ([]PackageFile, string, error) {
	return inspect(archive, inflate.Limit{})
}
