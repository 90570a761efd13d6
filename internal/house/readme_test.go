package house_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// around is what the README's five lines of each package take for granted.
const around = `
var (
	ctx        context.Context
	group      errgroup.Group
	store      internalstore.Store
	sqlite     flow.Store
	balancer   gray.Weights
	statistics gray.Outcomes
	desired    drift.State
	module     scale.Module
	history    scale.History
	modules    scale.Modules
	load       scale.Metrics
	pool       scale.Candidates
	flows      scale.Launcher
)

func call(addr string) error { return nil }

func acquire(context.Context, map[string]any) (struct{}, error) { return struct{}{}, nil }
`

// The README's five lines of each package compile.
func TestReadmeCompiles(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	var seen []string
	for _, match := range regexp.MustCompile("(?s)<!-- use: (\\S+) -->\n```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1) {
		name, lines := match[1], match[2]
		seen = append(seen, name)
		fmt.Fprintf(&source, "\nfunc use_%s() (err error) {\n%s", name, lines)
		// What is declared for the reader is used by nobody here.
		for _, declared := range regexp.MustCompile(`(?m)^(\w+(?:, \w+)*) :=`).FindAllStringSubmatch(lines, -1) {
			for variable := range strings.SplitSeq(declared[1], ", ") {
				fmt.Fprintf(&source, "\t_ = %s\n", variable)
			}
		}
		source.WriteString("\treturn err\n}\n")
	}
	slices.Sort(seen)
	if want := []string{"cmdb", "drift", "flow", "gray", "l5", "scale"}; !slices.Equal(seen, want) {
		t.Fatalf("README.md shows the use of %v, want %v", seen, want)
	}
	body := around + source.String()
	var imports strings.Builder
	for _, path := range []string{"context", "fmt", "time", "golang.org/x/sync/errgroup"} {
		if strings.Contains(body, path[strings.LastIndex(path, "/")+1:]+".") {
			fmt.Fprintf(&imports, "import %q\n", path)
		}
	}
	for _, name := range seen {
		fmt.Fprintf(&imports, "import %q\n", "github.com/zhiyun-ops/zhiyun/"+name)
	}
	imports.WriteString("import internalstore \"github.com/zhiyun-ops/zhiyun/internal/store\"\n")

	// An overlay puts the file into the module without writing into its folder.
	dir := t.TempDir()
	file := filepath.Join(dir, "readme.go")
	text := "package readme\n\n" + imports.String() + body
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, "internal", "house", "readme", "readme.go"): file}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "./internal/house/readme")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("README.md: %v\n%s\n%s", err, out, text)
	}
}
