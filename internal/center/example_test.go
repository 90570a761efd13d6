package center_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

func open() (*center.Centers, func()) {
	dir, err := os.MkdirTemp("", "blobs")
	if err != nil {
		panic(err)
	}
	centers, err := center.New(center.Config{Store: store.NewMemory(), Dir: dir})
	if err != nil {
		panic(err)
	}
	return centers, func() { _ = os.RemoveAll(dir) }
}

// A device's parameter overrides its module's; a secret is masked for whoever only looks.
func ExampleConfigs_Render() {
	centers, done := open()
	defer done()
	ctx := context.Background()
	for _, p := range []center.Param{
		{Level: center.LevelModule, Owner: "shop.cart", Key: "workers", Value: json.RawMessage(`4`)},
		{Level: center.LevelDevice, Owner: "d7", Key: "workers", Value: json.RawMessage(`16`)},
		{Level: center.LevelModule, Owner: "shop.cart", Key: "db.password", Value: json.RawMessage(`"x"`), Secret: true},
	} {
		if _, err := centers.Configs.Set(ctx, p, "alice"); err != nil {
			fmt.Println(err)
		}
	}
	if _, err := centers.Configs.SetTemplate(ctx, "cart.conf", "workers={{.param.workers}} password={{.param.db.password}}", "alice"); err != nil {
		fmt.Println(err)
	}
	file, err := centers.Configs.Render(ctx, "cart.conf", center.Scope{Module: "shop.cart", Device: "d7"}, false)
	fmt.Println(string(file.Body), err)
	fmt.Println(file.Params[1].Key, file.Params[1].Level, file.Params[1].Overrides)
	// Output:
	// workers=16 password=******** <nil>
	// workers device [module/shop.cart]
}

// An expansion mutes the load events that it answers; the mute ends by itself if the expansion is forgotten.
func ExampleNotify_Deliver() {
	centers, done := open()
	defer done()
	ctx := context.Background()
	notice := center.Notice{ID: "load-1", Kind: "load", Module: "shop.cart", Text: "shop.cart is over its capacity"}
	_, err := centers.Notify.Mute(ctx, center.Mute{
		Key: "execution-42", Kind: "load", Module: "shop.cart", Until: time.Now().Add(time.Hour), Actor: "flow", Reason: "expansion",
	})
	if err != nil {
		fmt.Println(err)
	}
	delivery, err := centers.Notify.Deliver(ctx, notice)
	fmt.Println(delivery.Outcome, delivery.By, err)
	// Output: muted execution-42 <nil>
}
