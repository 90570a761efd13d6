package flow

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// Build returns the document of a definition that was made in Go, for Save: YAML in the one canonical form, which Parse reads back as the same
// definition. What is wrong with its form is a *DefinitionError, with places in the document, which is returned as well; what depends on tools and
// other flows, Save says. Version, Digest, Source and SavedAt are not part of a document.
func Build(d Definition) ([]byte, error) {
	f := newFormat()
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(writeFields(f, &d, f.document)); err != nil {
		return nil, fmt.Errorf("flow: build %s: %w", d.Name, err)
	}
	if err := encoder.Close(); err != nil {
		return nil, fmt.Errorf("flow: build %s: %w", d.Name, err)
	}
	_, err := Parse(out.Bytes())
	return out.Bytes(), err
}
