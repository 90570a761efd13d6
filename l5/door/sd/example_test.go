package sd_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/door/sd"
)

// names stand for the device's agent.
type names struct{}

func (names) Lookup(_ context.Context, _, service string) (agent.View, <-chan struct{}, error) {
	member := agent.Member{Instance: l5.Instance{Service: service, Addr: "10.0.0.7:8080", Device: "web-17", Share: 100}, Weight: 100}
	return agent.View{Service: service, Members: []agent.Member{member}}, nil, nil
}

func ExampleDoor() {
	d, err := sd.New(sd.Config{Names: names{}, Caller: "ops.metrics", Listen: "127.0.0.1:9301"})
	if err != nil {
		log.Fatal(err)
	}
	// d.Run(ctx) serves on the address; here one request is answered without.
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "http://127.0.0.1:9301/sd?service=shop.cart", nil)
	d.Handler().ServeHTTP(w, r)
	fmt.Print(w.Body)
	// Output:
	// [{"targets":["10.0.0.7:8080"],"labels":{"__meta_zhiyun_device":"web-17","__meta_zhiyun_service":"shop.cart","__meta_zhiyun_state":"up"}}]
}
