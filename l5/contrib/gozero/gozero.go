// Package l5gozero lets go-zero's zrpc clients and servers use l5.
//
//	client, err := zrpc.NewClient(zrpc.RpcClientConf{Target: "l5:///shop.cart", NonBlock: true}, l5gozero.With(names))
//
// Calls go where names routes them, as package l5grpc says; RpcClientConf.BalancerName has no effect. go-zero's breaker
// interceptor stays before that; l5's guard makes it needless: leave Middlewares.Breaker off.
//
//	server := zrpc.MustNewServer(conf, register)
//	err := l5gozero.Register(ctx, names, "shop.cart", "10.0.0.7:8080")
//
// For go-zero's HTTP clients, httpc.NewServiceWithClient takes an http.Client of l5http.NewTransport.
package l5gozero

import (
	"context"
	"time"

	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/core/proc"
	"github.com/zeromicro/go-zero/zrpc"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5grpc"
)

// With makes targets of the form l5:///SERVICE go through names, which must run.
func With(names *l5.Client, options ...l5grpc.Option) zrpc.ClientOption {
	return zrpc.WithDialOption(l5grpc.With(names, options...))
}

// Register registers this process's addr under service, and drains it when go-zero begins to shut down: before it stops
// the server, so that no call is lost. Names must run until the process ends.
func Register(ctx context.Context, names *l5.Client, service, addr string, options ...l5.RegisterOption) error {
	registration, err := names.Register(ctx, service, addr, options...)
	if err != nil {
		return err
	}
	proc.AddWrapUpListener(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if err := registration.Drain(ctx); err != nil {
			logx.Errorf("l5gozero: %v", err)
		}
	})
	return nil
}
