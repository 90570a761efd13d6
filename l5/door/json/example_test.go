package json_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/door/json"
)

// names stand for the device's agent.
type names struct{}

func (names) Lookup(_ context.Context, _, service string) (agent.View, <-chan struct{}, error) {
	member := agent.Member{Instance: l5.Instance{Service: service, Addr: "10.0.0.7:8080", Device: "web-17", Share: 100}, Weight: 100}
	return agent.View{Service: service, Revision: 7, Members: []agent.Member{member}}, nil, nil
}

func ExampleDoor_Handler() {
	d, err := json.New(json.Config{Names: names{}, Caller: "shop.web"})
	if err != nil {
		log.Fatal(err)
	}
	w := httptest.NewRecorder()
	d.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/v1/services/shop.cart", nil))
	fmt.Print(w.Body)
	// Output:
	// {"service":"shop.cart","revision":7,"instances":[{"addr":"10.0.0.7:8080","weight":100,"health":"up","state":"up","device":"web-17"}]}
}
