// Package house holds the tests of the repository itself: who may import whom, and what it may depend on.
package house_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/zhiyun-ops/zhiyun"

// products are the packages that never import one another.
var products = []string{"l5", "flow", "cmdb", "gray", "drift", "scale"}

// forbidden lists imports that a part of the tree must not have in its closure (transitive) or among its own
// imports (direct), each with the reason.
var forbidden = []struct {
	from, imports, reason string
	transitive            bool
}{
	{"l5", "go.etcd.io/", "a program that routes calls pays for no etcd", true},
	{"l5", "modernc.org/", "a program that routes calls pays for no SQL", true},
	{"l5", "database/sql$", "a program that routes calls pays for no SQL", true},
	{"l5", "google.golang.org/grpc", "gRPC's 6 MB are for those who import l5/l5grpc", true},
	{"l5", "github.com/miekg/dns", "DNS is a door of the agent, not of the client", true},
	{"l5", "github.com/envoyproxy/", "xDS is a door of the agent, not of the client", true},
	{"l5/agent", "google.golang.org/grpc", "an agent whose doors are shut pays for none: commands open them", true},
	{"l5/agent", "github.com/miekg/dns", "an agent whose doors are shut pays for none: commands open them", true},
	{"l5/agent", "github.com/envoyproxy/", "an agent whose doors are shut pays for none: commands open them", true},
	{"l5", "github.com/hashicorp/go-memdb", "the client holds snapshots, not tables", true},
	{"l5", module + "/internal/state", "the client holds snapshots, not tables", true},
	{"flow", "go.etcd.io/", "flow keeps its record in SQL", true},
	{"flow", "modernc.org/", "the SQL driver is chosen by importing flow/sqlitestore", true},
	{"cmdb", "go.etcd.io/", "etcd is chosen by importing cmdb/etcdstore", true},
	{"gray", "go.etcd.io/", "etcd is chosen by importing gray/etcdstore", true},
	{"drift", "go.etcd.io/", "etcd is chosen by importing drift/etcdstore", true},
	{"scale", "go.etcd.io/", "etcd is chosen by importing scale/etcdstore", true},
	{"internal/store", "go.etcd.io/", "the shape of a store is not bound to one", true},
	{"internal/state", "go.etcd.io/", "the replica reads any store", true},
	{"internal/transport", "connectrpc.com/", "the transport carries bytes, whatever speaks over it", true},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// list is `go list -deps` of the module's own packages, without test imports.
func list(t *testing.T) map[string]pkg {
	t.Helper()
	command := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	command.Dir = root(t)
	output, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := make(map[string]pkg)
	decoder := json.NewDecoder(bytes.NewReader(output))
	for decoder.More() {
		var p pkg
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		packages[strings.TrimPrefix(p.ImportPath, module+"/")] = p
	}
	return packages
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// within says whether path is the package dir or one below it.
func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func TestProductsNeverImportOneAnother(t *testing.T) {
	t.Parallel()
	for path, p := range list(t) {
		home := slices.IndexFunc(products, func(product string) bool { return within(path, product) })
		if home < 0 {
			continue
		}
		for _, imported := range p.Deps {
			local, ours := strings.CutPrefix(imported, module+"/")
			if !ours {
				continue
			}
			for _, other := range products {
				if other != products[home] && within(local, other) {
					t.Errorf("%s depends on %s: the products are independent; declare a small interface in %s and join them in internal/wiring", path, local, products[home])
				}
			}
			if !within(local, products[home]) && !within(local, "internal") {
				t.Errorf("%s depends on %s: a product imports its own sub-packages and internal/ alone", path, local)
			}
		}
	}
}

func TestForbiddenImports(t *testing.T) {
	t.Parallel()
	packages := list(t)
	for _, rule := range forbidden {
		p, ok := packages[rule.from]
		if !ok {
			t.Errorf("the rule for %s guards nothing: there is no such package", rule.from)
			continue
		}
		imports := p.Imports
		if rule.transitive {
			imports = p.Deps
		}
		for _, imported := range imports {
			// A rule that ends in $ means that package alone: uuid imports database/sql/driver for an interface.
			exact, one := strings.CutSuffix(rule.imports, "$")
			if strings.HasPrefix(imported, rule.imports) || (one && imported == exact) {
				t.Errorf("%s depends on %s: %s", rule.from, imported, rule.reason)
			}
		}
	}
}

// confined lists libraries that may age, each with the only file or folder that may import it, tests included, so that
// it can be replaced there.
var confined = []struct{ library, to, reason string }{
	{"github.com/urfave/cli/", "cmd/", "command lines are built under cmd/ alone"},
	{"github.com/cenkalti/backoff/", "internal/backoff/backoff.go", "waits come from internal/backoff"},
	{"github.com/google/uuid", "internal/uid/uid.go", "identifiers come from internal/uid"},
}

func TestLibrariesThatMayAgeAreConfined(t *testing.T) {
	t.Parallel()
	used := make([]bool, len(confined))
	for file, imports := range sources(t) {
		for _, imported := range imports {
			for i, rule := range confined {
				if !strings.HasPrefix(imported+"/", rule.library) {
					continue
				}
				used[i] = true
				if file != rule.to && !(strings.HasSuffix(rule.to, "/") && strings.HasPrefix(file, rule.to)) {
					t.Errorf("%s imports %s, which is for %s alone: %s", file, imported, rule.to, rule.reason)
				}
			}
		}
	}
	for i, rule := range confined {
		if !used[i] {
			t.Errorf("the rule for %s confines nothing: drop it", rule.library)
		}
	}
}

// sources are the imports of each Go file of the module, by its path below the root.
func sources(t *testing.T) map[string][]string {
	t.Helper()
	files := make(map[string][]string)
	base := root(t)
	err := filepath.WalkDir(base, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			_, nested := os.Stat(filepath.Join(path, "go.mod"))
			if path != base && (nested == nil || strings.HasPrefix(entry.Name(), ".")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(base, path)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(name)] = nil
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			files[filepath.ToSlash(name)] = append(files[filepath.ToSlash(name)], imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// clientThird lists the third-party modules in the closure of the l5 client, each with its reason.
var clientThird = map[string]string{
	"connectrpc.com/connect":              "the wire protocol",
	"google.golang.org/protobuf":          "the wire format",
	"github.com/prometheus/client_golang": "Config.Metrics is a prometheus.Registerer",
	"github.com/prometheus/client_model":  "of client_golang",
	"github.com/prometheus/common":        "of client_golang",
	"github.com/prometheus/procfs":        "of client_golang",
	"github.com/beorn7/perks":             "of client_golang",
	"github.com/cespare/xxhash":           "of client_golang",
	"github.com/munnerz/goautoneg":        "of prometheus/common",
	"go.yaml.in/yaml/v2":                  "of prometheus/common",
	"golang.org/x/sys":                    "of client_golang",
	"github.com/cenkalti/backoff/v4":      "waits between connection attempts, through internal/backoff",
	"golang.org/x/sync":                   "one errgroup owns the client's goroutines",
	"github.com/google/uuid":              "names a reporter",
	"github.com/klauspost/compress":       "of client_golang",
	"github.com/kylelemons/godebug":       "of client_golang's test helpers",
	"google.golang.org/genproto":          "of protobuf status details",
	"github.com/zhiyun-ops/zhiyun":        "ourselves",
}

func TestClosureOfTheClient(t *testing.T) {
	t.Parallel()
	client, ok := list(t)["l5"]
	if !ok {
		t.Fatal("there is no package l5")
	}
	for _, imported := range client.Deps {
		first, _, _ := strings.Cut(imported, "/")
		if !strings.Contains(first, ".") {
			continue // standard library
		}
		known := false
		for name := range clientThird {
			known = known || within(imported, name)
		}
		if !known {
			t.Errorf("import of l5 pulls in %s, which is not on the list; drop it, or add its module with a reason", imported)
		}
	}
}

// requirements lists go.mod's direct requirements, each with its reason.
var requirements = map[string]string{
	"cel.dev/cel-go":                               "expressions in flows and filters: typed, bounded, safe for untrusted authors",
	"connectrpc.com/connect":                       "wire APIs: gRPC, gRPC-Web and JSON from one handler",
	"github.com/adhocore/gronx":                    "reads cron expressions; no dependencies of its own",
	"github.com/anishathalye/porcupine":            "tests: linearizability",
	"github.com/cenkalti/backoff/v4":               "waiting between attempts",
	"github.com/envoyproxy/go-control-plane/envoy": "the messages of xDS, for its door",
	"github.com/fsnotify/fsnotify":                 "file events where fanotify is not to be had",
	"github.com/google/go-cmp":                     "tests: diffs",
	"github.com/google/uuid":                       "identifiers",
	"github.com/hashicorp/go-memdb":                "the in-memory replica's tables",
	"github.com/jackc/pgx/v5":                      "PostgreSQL: array parameters, no database/sql between",
	"github.com/miekg/dns":                         "the wire format of DNS, for its door",
	"github.com/prometheus/client_golang":          "metrics",
	"github.com/santhosh-tekuri/jsonschema/v6":     "validates tool inputs and outputs",
	"github.com/urfave/cli/v2":                     "the command line",
	"go.etcd.io/etcd/api/v3":                       "etcd's error codes",
	"go.etcd.io/etcd/client/v3":                    "the state of record",
	"go.etcd.io/etcd/server/v3":                    "the state of record, embedded",
	"go.yaml.in/yaml/v3":                           "documents and flows",
	"golang.org/x/sync":                            "errgroup",
	"golang.org/x/sys":                             "system calls the standard library has not",
	"google.golang.org/grpc":                       "the gRPC and xDS doors of l5; metadata of the etcd client",
	"google.golang.org/protobuf":                   "wire format",
	"modernc.org/libc":                             "tests: the disk that fails under SQLite is written against SQLite's own interface",
	"modernc.org/sqlite":                           "SQL without cgo",
	"pgregory.net/rapid":                           "tests: properties",
	"go.uber.org/zap":                              "etcd's logger, bridged to slog",
}

func TestDirectRequirements(t *testing.T) {
	t.Parallel()
	file, err := os.Open(filepath.Join(root(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	required := make(map[string]bool)
	scanner := bufio.NewScanner(file)
	for block := false; scanner.Scan(); {
		line := strings.TrimSpace(scanner.Text())
		switch {
		case line == "require (":
			block = true
		case line == ")":
			block = false
		case block && line != "" && !strings.HasSuffix(line, "// indirect"):
			name, _, _ := strings.Cut(line, " ")
			required[name] = true
			if requirements[name] == "" {
				t.Errorf("go.mod requires %s, which is not on the list; drop it, or add it with a reason", name)
			}
		}
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	for name := range requirements {
		if !required[name] {
			t.Errorf("%s is on the list, but go.mod does not require it; take it off", name)
		}
	}
}
