// Command postgres is a process with a flow engine and the PostgreSQL store, and nothing else.
package main

import (
	"context"

	"github.com/zhiyun-ops/zhiyun/flow/pgstore"
	"github.com/zhiyun-ops/zhiyun/internal/bench/flowbench/waiter"
)

func main() {
	waiter.Main(func(ctx context.Context, name string) (waiter.Store, error) { return pgstore.Open(ctx, name) })
}
