package l5grpc_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5grpc"
	"github.com/zhiyun-ops/zhiyun/l5/memstore"
	"github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/l5/server/daemon"
)

func ExampleWith() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	target, client := names(ctx)
	defer os.RemoveAll(filepath.Dir(target))

	// One side: a gRPC server that registers itself.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	backend := grpc.NewServer()
	healthpb.RegisterHealthServer(backend, health.NewServer())
	go backend.Serve(listener)
	defer backend.GracefulStop()
	if _, err := client.Register(ctx, "shop.cart", listener.Addr().String()); err != nil {
		log.Fatal(err)
	}

	// The other side: a connection to the service.
	conn, err := grpc.NewClient("l5:///shop.cart", l5grpc.With(client), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.GetStatus())
	// Output: SERVING
}

// names runs a name server and a client of it until ctx ends.
func names(ctx context.Context) (socket string, client *l5.Client) {
	dir, err := os.MkdirTemp("", "l5")
	if err != nil {
		log.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	d, err := daemon.New(daemon.Config{Listen: "unix://" + socket, Server: server.Config{Store: memstore.New()}})
	if err != nil {
		log.Fatal(err)
	}
	client, err = l5.New(l5.Config{Target: "unix://" + socket, Caller: "shop.web"})
	if err != nil {
		log.Fatal(err)
	}
	go d.Run(ctx)
	go client.Run(ctx)
	return socket, client
}
