// Command sqlite is a process with a flow engine and the SQLite store, and nothing else.
package main

import (
	"context"

	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
	"github.com/zhiyun-ops/zhiyun/internal/bench/flowbench/waiter"
)

func main() {
	waiter.Main(func(_ context.Context, name string) (waiter.Store, error) { return sqlitestore.Open(name) })
}
