// Package sample is a module to be operated: an HTTP server with a capacity that is real, so that overload is
// real, small enough to be read at once.
//
//	server, err := sample.New(sample.Config{Addr: "127.0.0.2:8080", Root: root})
//	group.Go(func() error { return server.Run(ctx) })       // reads ROOT/etc/sample.yaml, drains when ctx ends
//	fmt.Println(server.Addr())
//
//	pack, err := sample.Pack(exe)                           // the package that package.install installs
//	_, err = io.Copy(file, pack)
//
// Main is the same as a process: it reads its arguments, and drains on SIGTERM.
//
// The server answers GET / in the service time, GET /healthz at once, and GET /version with version and
// settings. At most Workers requests are served at a time, each for Workers/Rate seconds: so Rate requests a
// second, and not more, whatever the machine. What comes above that waits in a queue; a queue that is full
// answers 503 with Retry-After.
//
// Limits: the time is spent waiting, not computing, so that many instances fit on one machine. The settings
// are read when the server starts.
package sample
