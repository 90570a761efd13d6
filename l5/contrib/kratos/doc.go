// Package l5kratos lets Kratos applications find, call and be services of l5.
//
//	names := l5kratos.New(client)
//	app := kratos.New(kratos.Name("shop.cart"), kratos.Registrar(names), kratos.Server(grpcServer))
//
//	selector.SetGlobalSelector(names)
//	web, err := http.NewClient(ctx, http.WithEndpoint("discovery:///shop.cart"), http.WithDiscovery(names), http.WithSubset(0))
//	conn, err := grpc.DialInsecure(ctx, grpc.WithEndpoint("discovery:///shop.cart"), grpc.WithDiscovery(names), grpc.WithSubset(0))
//
// Each call goes where client routes it, and how it went is told back: Kratos' codes of 500 and above, but not 501, are failures,
// 429 is a rejection for overload and 499 says nothing. Turn Kratos' own subset off, as above: client has its own. Node filters are kept to.
//
// For gRPC, package l5grpc does without discovery and holds fewer connections:
//
//	conn, err := grpc.DialInsecure(ctx, grpc.WithEndpoint("l5:///shop.cart"), grpc.WithOptions(l5grpc.With(client)))
//
// An application with several endpoints registers all under its name, told apart by the label scheme. Give such a one a
// name per endpoint where calls of both kinds are many: routes do not know kinds.
package l5kratos
