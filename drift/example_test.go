package drift_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/drift/memstore"
)

// Compare a folder with what it should hold. Nothing is written.
func ExampleCompare() {
	root, err := os.MkdirTemp("", "drift")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(root)
	if err := os.WriteFile(filepath.Join(root, "app.conf"), []byte("port = 81\n"), 0o600); err != nil {
		panic(err)
	}
	desired := drift.State{Files: map[string]drift.File{
		"app.conf": {Kind: drift.KindConfig, Digest: drift.Digest([]byte("port = 80\n")), Mode: 0o644},
		"current":  {Link: "releases/7"},
	}}
	live, err := drift.Collect(context.Background(), desired, drift.Files(root))
	if err != nil {
		panic(err)
	}
	for _, f := range drift.Compare(desired, live) {
		fmt.Println(f)
	}
	// Output:
	// config app.conf: content, mode: expected sha256:01ea9bc79534 0644, actual sha256:4406e8c22b6b 0600
	// file current: missing: expected link -> releases/7, actual nothing
}

// Compare a new device with one in service. What is rendered for each device is left out.
func ExamplePeers() {
	file := func(content string) drift.File { return drift.File{Digest: drift.Digest([]byte(content)), Mode: 0o644} }
	hosts := func(content string) drift.File {
		f := file(content)
		f.PerDevice = true
		return f
	}
	serving := drift.State{
		Files: map[string]drift.File{"etc/hosts": hosts("10.0.0.1"), "bin/cart": file("1.4"), "etc/cart": file("a")},
		Ports: []drift.Port{{Port: 8080, Addr: "10.0.0.1"}},
	}
	fresh := drift.State{
		Files: map[string]drift.File{"etc/hosts": hosts("10.0.0.2"), "bin/cart": file("1.3"), "etc/cart": file("a")},
	}
	for _, f := range drift.Peers(fresh, serving) {
		fmt.Println(f.Kind, f.Subject, f.Fields)
	}
	// Output:
	// file bin/cart [content]
	// port tcp/8080 [missing]
}

// An agent notices that a process is gone and has it started, having said so before.
func ExampleAgent() {
	running := &table{}
	done := make(chan struct{})
	agent, err := drift.New(drift.Config{
		Device:     "d1",
		Desired:    drift.Fixed(drift.State{Processes: []drift.Process{{Name: "cart"}}}),
		Collectors: []drift.Collector{drift.Processes(running)},
		Mode:       drift.Repair,
		Repairer:   running,
		Confirm:    10 * time.Millisecond,
		OnEvent: func(e drift.Event) {
			fmt.Println(e)
			if e.Kind == drift.EventClosed {
				close(done)
			}
		},
	})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error)
	go func() { stopped <- agent.Run(ctx) }()
	<-done
	cancel()
	fmt.Println(<-stopped)
	// Output:
	// found process cart: expected cart, actual not running
	// intent process cart: expected cart, actual not running (mode: mode is repair)
	// closed process cart: repaired
	// <nil>
}

// A ledger suspects the declaration when many devices of a module differ alike.
func ExampleLedger() {
	ledger, err := drift.NewLedger(drift.LedgerConfig{Store: memstore.New(), Fleet: fleet(10)})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	for i := range 4 {
		err := ledger.Report(ctx, drift.Report{Device: fmt.Sprint("d", i), Generation: "7", Findings: []drift.Finding{{
			Kind: drift.KindConfig, Subject: "etc/cart", Fields: []string{drift.FieldContent},
		}}})
		if err != nil {
			panic(err)
		}
	}
	brakes, err := ledger.Brakes(ctx, "shop.cart")
	if err != nil {
		panic(err)
	}
	fmt.Println(brakes[0].Reason())
	directives, err := ledger.Directives(ctx, "d9") // for every device of the module
	if err != nil {
		panic(err)
	}
	fmt.Println(directives.Holds[0].Kind, directives.Holds[0].Subject, directives.Holds[0].Verdict)
	// Output:
	// brake: 4 of 10 devices of shop.cart differ alike, more than 30%: the declaration is suspected
	// config etc/cart suspect
}
