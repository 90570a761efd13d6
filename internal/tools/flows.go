package tools

import (
	"embed"
	"path"
	"strings"
)

//go:embed flows/*.yaml
var documents embed.FS

// Flows are the definitions of the flows that a server brings, by name: expand and contract.
func Flows() map[string][]byte {
	out := make(map[string][]byte)
	entries, err := documents.ReadDir("flows")
	if err != nil {
		return out // an embedded folder is always there
	}
	for _, entry := range entries {
		source, err := documents.ReadFile(path.Join("flows", entry.Name()))
		if err == nil {
			out[strings.TrimSuffix(entry.Name(), ".yaml")] = source
		}
	}
	return out
}
