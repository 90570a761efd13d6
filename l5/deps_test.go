package l5_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed is every module that a program gets by importing the client, with the reason.
var allowed = map[string]string{
	"github.com/zhiyun-ops/zhiyun":        "this one",
	"connectrpc.com/connect":              "the wire protocol",
	"google.golang.org/protobuf":          "its messages",
	"github.com/google/uuid":              "the id of a reporting process",
	"golang.org/x/sync":                   "errgroup: Run waits for its goroutines",
	"github.com/prometheus/client_golang": "Config.Metrics",
	"github.com/prometheus/client_model":  "of client_golang",
	"github.com/prometheus/common":        "of client_golang",
	"github.com/prometheus/procfs":        "of client_golang",
	"github.com/beorn7/perks":             "of client_golang",
	"github.com/cespare/xxhash/v2":        "of client_golang",
	"github.com/munnerz/goautoneg":        "of client_golang",
	"go.yaml.in/yaml/v2":                  "of prometheus/common",
	"golang.org/x/sys":                    "mapping the device's route table",
}

// forbidden are parts of import paths that never get in, with the reason.
var forbidden = map[string]string{
	"etcd":                   "the store is the server's",
	"database/sql":           "the records are the server's",
	"sqlite":                 "the records are the server's",
	"google.golang.org/grpc": "the gRPC door is a package of its own",
	"x/net/dns":              "the DNS door is the agent's",
	"miekg/dns":              "the DNS door is the agent's",
	"zhiyun/flow":            "products do not import one another",
	"zhiyun/cmdb":            "products do not import one another",
	"zhiyun/gray":            "products do not import one another",
	"zhiyun/drift":           "products do not import one another",
	"zhiyun/scale":           "products do not import one another",
	"zhiyun/l5/server":       "a caller needs no server",
	"zhiyun/l5/agent":        "a caller needs no agent",
}

func TestClosure(t *testing.T) {
	t.Parallel()
	output, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}} {{.Module.Path}}{{end}}", ".", "./l5http").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	var modules []string
	for line := range strings.Lines(string(output)) {
		path, module, _ := strings.Cut(strings.TrimSpace(line), " ")
		modules = append(modules, module)
		for part, reason := range forbidden {
			if strings.Contains(path, part) {
				t.Errorf("the client imports %s: %s", path, reason)
			}
		}
	}
	slices.Sort(modules)
	modules = slices.Compact(modules)
	for _, module := range modules {
		if allowed[module] == "" {
			t.Errorf("the client imports module %s; do without it, or give the reason here", module)
		}
	}
	for module := range allowed {
		if !slices.Contains(modules, module) {
			t.Errorf("module %s is allowed but no longer needed; take it off the list", module)
		}
	}
}
