package tooltest

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/zhiyun-ops/zhiyun/flow"
)

//go:embed scaffold
var scaffold embed.FS

// Languages are those in which New writes a tool.
func Languages() []string { return []string{"go", "python", "sh"} }

// New writes a tool that passes all checks into a new folder, and returns the names of its files. A tool in Go has to be built first.
func New(dir, name, language string) ([]string, error) {
	if err := (flow.Manifest{Name: name}).Check(); err != nil {
		return nil, fmt.Errorf("tooltest: %w", err)
	}
	files := map[string]string{flow.ManifestFile: "tool.json"} // by their names in dir
	resident := "\n  \"resident\": {},"
	switch language {
	case "go":
		files["main.go"] = "main.go.txt"
	case "python":
		files["run"] = "run.py"
	case "sh":
		files["run"], resident = "run.sh", ""
	default:
		return nil, fmt.Errorf("tooltest: language %q: want one of %s", language, strings.Join(Languages(), ", "))
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("tooltest: %w", err)
	}
	var names []string
	write := func(file, content string, mode os.FileMode) error {
		names = append(names, filepath.Join(dir, file))
		return os.WriteFile(filepath.Join(dir, file), []byte(content), mode)
	}
	var faults []error
	for file, source := range files {
		content, err := scaffold.ReadFile("scaffold/" + source)
		if err != nil {
			return nil, fmt.Errorf("tooltest: %w", err)
		}
		mode := os.FileMode(0o644)
		if file == "run" {
			mode = 0o755
		}
		text := strings.ReplaceAll(strings.ReplaceAll(string(content), "NAME", name), "RESIDENT", resident)
		if file != flow.ManifestFile {
			text = strings.ReplaceAll(string(content), "NAME", name)
		}
		faults = append(faults, write(file, text, mode))
	}
	if language == "go" {
		faults = append(faults, write("go.mod", "module zhiyun-tool\n\ngo 1.25\n", 0o644))
	}
	return names, errors.Join(faults...)
}
