package server_test

import (
	"context"
	"os"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/tools"
)

// TestMain lets this binary be the tools, as the zhiyun binary is: a server runs itself for each. Without it, a tool would be all tests once more.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "tool" {
		os.Exit(tools.Run(context.Background(), os.Args[2], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
	}
	os.Exit(m.Run())
}
