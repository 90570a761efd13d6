package balance_test

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
)

// A shell around the core: a group decides the weights, a picker follows them.
func Example() {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	group := balance.NewGroup(balance.Config{})
	group.Step(start, balance.Members{{Addr: "10.0.0.1:80", Weight: 100, Gray: 1}, {Addr: "10.0.0.2:80", Weight: 100, Gray: 0.5}, {Addr: "10.0.0.3:80", Weight: 100, Gray: 1}})
	for _, action := range group.Step(start.Add(time.Second), balance.Struck{Addr: "10.0.0.3:80", Evidence: "connection refused twice"}) {
		if moved, ok := action.(balance.Moved); ok {
			fmt.Printf("%s is %v: %s\n", moved.Addr, moved.To, moved.Reason)
		}
	}

	statuses := group.Statuses()
	loads := make([]balance.Load, len(statuses))
	candidates := make([]balance.Candidate, len(statuses))
	for i, s := range statuses {
		fmt.Printf("%s weighs %v: %s\n", s.Addr, s.Weight, s.Reason)
		candidates[i] = balance.Candidate{Weight: s.Weight, Load: &loads[i], Key: s.Key}
	}
	picker := balance.NewPicker(balance.Adaptive, candidates, 0)
	random := rand.New(rand.NewPCG(1, 2))
	picks := make([]int, len(statuses))
	for range 3000 {
		i, load := picker.Pick(random.Uint64(), 0)
		load.Begin()
		load.Succeeded(5 * time.Millisecond)
		picks[i]++
	}
	fmt.Println("about two of three:", picks[0] > 1900 && picks[0] < 2100, "never:", picks[2])
	// Output:
	// 10.0.0.3:80 is ejected: connection refused twice; ejected for 1s
	// 10.0.0.1:80 weighs 100: up
	// 10.0.0.2:80 weighs 50: up
	// 10.0.0.3:80 weighs 0: ejected: connection refused twice; ejected for 1s
	// about two of three: true never: 0
}

// Calls of one key go to one instance for as long as it is there and not overloaded.
func ExamplePicker_Pick_hash() {
	var candidates []balance.Candidate
	for i := range 4 {
		candidates = append(candidates, balance.Candidate{Weight: 100, Load: new(balance.Load), Key: balance.Hash(fmt.Sprintf("10.0.0.%d:80", i))})
	}
	before := balance.NewPicker(balance.Maglev, candidates, 0)
	owner, _ := before.Pick(rand.Uint64(), balance.Hash("user 42"))
	again, _ := before.Pick(rand.Uint64(), balance.Hash("user 42"))
	candidates[(owner+1)%4].Weight = 0 // another one leaves
	after, _ := balance.NewPicker(balance.Maglev, candidates, 0).Pick(rand.Uint64(), balance.Hash("user 42"))
	fmt.Println(owner == again, owner == after)
	// Output: true true
}
