package l5kratos_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/go-kratos/kratos/v2/registry"

	"github.com/zhiyun-ops/zhiyun/l5"
	l5kratos "github.com/zhiyun-ops/zhiyun/l5/contrib/kratos"
	"github.com/zhiyun-ops/zhiyun/l5/memstore"
	"github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/l5/server/daemon"
)

func ExampleNew() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	dir, err := os.MkdirTemp("", "l5")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	target := "unix://" + filepath.Join(dir, "s")
	d, err := daemon.New(daemon.Config{Listen: target, Server: server.Config{Store: memstore.New()}})
	if err != nil {
		log.Fatal(err)
	}
	client, err := l5.New(l5.Config{Target: target, Caller: "shop.web"})
	if err != nil {
		log.Fatal(err)
	}
	go d.Run(ctx)
	go client.Run(ctx)

	names := l5kratos.New(client) // kratos.Registrar(names), http.WithDiscovery(names), selector.SetGlobalSelector(names)
	app := &registry.ServiceInstance{ID: "1", Name: "shop.cart", Endpoints: []string{"grpc://10.0.0.7:9000"}}
	if err := names.Register(ctx, app); err != nil {
		log.Fatal(err)
	}
	all, err := names.GetService(ctx, "shop.cart")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(all[0].Name, all[0].Endpoints)
	// Output: shop.cart [grpc://10.0.0.7:9000]
}
