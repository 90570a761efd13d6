package flow_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

// Register tools, save a flow, start it and watch it.
func Example() {
	type In struct {
		Name string `json:"name"`
	}
	type Out struct {
		Text string `json:"text"`
	}
	tools := flow.NewTools()
	flow.Func(tools, "greet", func(_ context.Context, in In) (Out, error) {
		return Out{"hello " + in.Name}, nil
	}, flow.WithEffect(flow.Pure))
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: tools})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	defer func() { cancel(); <-done }()

	_, err = engine.Save(ctx, []byte(`
flow: greetings
params: {names: "list<string>"}
steps:
  - {name: all, tool: greet, each: params.names, with: {name: "${item}"}}
  - {name: again, tool: greet, with: {name: "${steps.all.items[0].text}!"}}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	id, err := engine.Start(ctx, "greetings", map[string]any{"names": []string{"ann", "bob"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for event, err := range engine.Watch(ctx, id) {
		if err != nil {
			fmt.Println(err)
		}
		if event.Kind == flow.EventAttemptDone {
			fmt.Println(event.Step, event.Item, string(event.Output))
		}
	}
	// Output:
	// all 0 {"text":"hello ann"}
	// all 1 {"text":"hello bob"}
	// again 0 {"text":"hello hello ann!"}
}

// What was done is undone in reverse when a later step fails.
func Example_compensation() {
	tools := flow.NewTools()
	do := func(what string, err error) func(context.Context, struct{}) (struct{}, error) {
		return func(context.Context, struct{}) (struct{}, error) {
			fmt.Println(what)
			return struct{}{}, err
		}
	}
	undo := func(what string) func(context.Context, map[string]any) (struct{}, error) {
		return func(context.Context, map[string]any) (struct{}, error) {
			fmt.Println(what)
			return struct{}{}, nil
		}
	}
	flow.Func(tools, "mute", do("mute", nil), flow.WithEffect(flow.Keyed), flow.WithUndo("unmute"))
	flow.Func(tools, "acquire", do("acquire", nil), flow.WithEffect(flow.Keyed), flow.WithUndo("release"))
	flow.Func(tools, "test", do("test", flow.Fatal(errors.New("port 80 is closed"))), flow.WithEffect(flow.Pure))
	flow.Func(tools, "unmute", undo("unmute"), flow.WithEffect(flow.Keyed))
	flow.Func(tools, "release", undo("release"), flow.WithEffect(flow.Keyed))
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: tools})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if _, err := engine.Save(ctx, []byte(`{flow: grow, steps: [{name: a, tool: mute}, {name: b, tool: acquire}, {name: c, tool: test}]}`)); err != nil {
		fmt.Println(err)
		return
	}
	id, err := engine.Start(ctx, "grow", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	x, err := engine.Wait(ctx, id)
	fmt.Println(x.State, x.Error, err)
	// Output:
	// mute
	// acquire
	// test
	// release
	// unmute
	// failed failed: step c: port 80 is closed <nil>
}

// A document is checked whole when it is saved: each fault has its line and column.
func ExampleEngine_Lint() {
	tools := flow.NewTools()
	flow.Func(tools, "acquire", func(context.Context, struct {
		Count int `json:"count"`
	}) (struct {
		Devices []string `json:"devices"`
	}, error) {
		panic("not run")
	})
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: tools})
	if err != nil {
		fmt.Println(err)
		return
	}
	faults, err := engine.Lint(context.Background(), []byte(`flow: grow
params: {count: int}
steps:
  - name: get
    tool: acquire
    with: {count: "${params.cuont}"}
  - name: use
    tool: acquier
  - name: more
    tool: acquire
    with: {count: "${steps.get.devices}"}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, fault := range faults {
		fmt.Println(fault)
	}
	// Output:
	// 6:22: steps[0].with.count: no parameter is called "cuont"; did you mean "count"?
	// 8:11: steps[1].tool: no tool is called "acquier"; did you mean "acquire"?
	// 11:19: steps[2].with.count: has type list<string>, want int
}

// A key makes a start idempotent: to repeat it is harmless, and to use it for something else is an error that names what differs.
func ExampleKey() {
	tools := flow.NewTools()
	flow.Func(tools, "buy", func(_ context.Context, in struct {
		Count int `json:"count"`
	}) (struct{}, error) {
		fmt.Println("buys", in.Count)
		return struct{}{}, nil
	}, flow.WithEffect(flow.Keyed), flow.WithTimeout(time.Minute))
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: tools})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if _, err := engine.Save(ctx, []byte(`{flow: stock, params: {count: int}, steps: [{name: buy, tool: buy, with: {count: "${params.count}"}}]}`)); err != nil {
		fmt.Println(err)
		return
	}
	first, err := engine.Start(ctx, "stock", map[string]any{"count": 2}, flow.Key("order-7"))
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = engine.Wait(ctx, first)
	again, errAgain := engine.Start(ctx, "stock", map[string]any{"count": 2}, flow.Key("order-7"))
	fmt.Println(again == first, err, errAgain)
	_, err = engine.Start(ctx, "stock", map[string]any{"count": 3}, flow.Key("order-7"))
	var exists *flow.ExistsError
	if errors.As(err, &exists) {
		fmt.Println(errors.Is(err, flow.ErrExists), exists.Execution == first, exists.Differ)
	}
	// Output:
	// buys 2
	// true <nil> <nil>
	// true true [count]
}
