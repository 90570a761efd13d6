package cmdb

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Document is one YAML or JSON text with the name by which faults call it. It may hold many objects, each
// after a line of three dashes.
type Document struct {
	Name string
	Data []byte
}

// Source is where declarations come from.
type Source interface {
	// Read returns the documents, in the same order each time.
	Read(ctx context.Context) ([]Document, error)
}

// maxDocument bounds one document, so that a mistaken folder is an error and not an outage.
const maxDocument = 256 << 20

// Dir reads every .yaml, .yml and .json file below a folder, in path order, but for names that begin with
// a dot.
func Dir(path string) Source { return dirSource(path) }

type dirSource string

func (d dirSource) Read(ctx context.Context) ([]Document, error) {
	root := string(d)
	var docs []Document
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if path != root && strings.HasPrefix(entry.Name(), ".") {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		switch strings.ToLower(filepath.Ext(path)) {
		case ".yaml", ".yml", ".json":
		default:
			return nil
		}
		if entry.IsDir() {
			return nil
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() > maxDocument {
			return fmt.Errorf("%s has %d bytes, more than %d; split it", path, info.Size(), maxDocument)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		docs = append(docs, Document{Name: filepath.ToSlash(path), Data: data})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cmdb: read declarations in %s: %w", root, err)
	}
	if len(docs) == 0 {
		return nil, fmt.Errorf("cmdb: read declarations in %s: no .yaml, .yml or .json file; give the folder that holds them", root)
	}
	return docs, nil
}

// Documents gives texts; faults call them "document 1" and so on.
func Documents(texts ...[]byte) Source {
	docs := make(Named, len(texts))
	for i, text := range texts {
		docs[i] = Document{Name: fmt.Sprintf("document %d", i+1), Data: text}
	}
	return docs
}

// Named gives documents that have names already.
type Named []Document

// Read implements Source.
func (n Named) Read(context.Context) ([]Document, error) { return n, nil }
