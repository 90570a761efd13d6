package cmdb_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/cmdb/memstore"
)

func TestLifeOfADevice(t *testing.T) {
	t.Parallel()
	db := shop(t)
	ctx := t.Context()
	acquired, err := db.Acquire(ctx, cmdb.AcquireRequest{Owner: "exec-1", Key: "acquire", Module: "shop.cart", Count: 2, City: "shenzhen", Types: []string{"c1", "b6"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"d2", "d1"}, names(acquired)); diff != "" {
		t.Errorf("first types first: %s", diff)
	}
	if err := db.Serve(ctx, "exec-1", "d2", "", cmdb.By("flow"), cmdb.Because("expand")); err != nil {
		t.Fatal(err)
	}
	if err := db.Serve(ctx, "exec-2", "d1", "", cmdb.By("flow")); !errors.Is(err, cmdb.ErrState) {
		t.Errorf("another owner serves: %v", err)
	}
	if released, err := db.Release(ctx, "exec-1", []string{"d1", "d2", "d3", "nope"}); err != nil || !slices.Equal(released, []string{"d1"}) {
		t.Errorf("release: %v, %v", released, err)
	}
	if _, err := db.Hold(ctx, "exec-3", []string{"d2"}, time.Minute); err != nil {
		t.Fatal(err)
	}
	d, err := db.Device("d2")
	if err != nil || d.State != cmdb.Held || d.Holder != "exec-3" || d.Module != "shop.cart" {
		t.Errorf("held for contraction: %+v, %v", d, err)
	}
	if err := db.MarkFaulty(ctx, "d2", "disk gone", cmdb.By("drift")); err != nil {
		t.Fatal(err)
	}
	if err := db.Serve(ctx, "exec-3", "d2", "shop.cart"); !errors.Is(err, cmdb.ErrState) {
		t.Errorf("a faulty device is served: %v", err)
	}
	if err := db.Retire(ctx, "d2", cmdb.By("ann")); err != nil {
		t.Fatal(err)
	}
	if err := db.Repair(ctx, "d2", cmdb.By("ann")); !errors.Is(err, cmdb.ErrState) {
		t.Errorf("a retired device is repaired: %v", err)
	}
	want := map[cmdb.State]int{cmdb.Idle: 3, cmdb.Held: 0, cmdb.InService: 0, cmdb.Faulty: 0, cmdb.Retired: 1}
	if diff := cmp.Diff(want, db.Counts()); diff != "" {
		t.Errorf("I10: %s", diff)
	}
	if _, err := db.Delete(ctx, cmdb.KindDevice, "d2", cmdb.By("ann")); err != nil {
		t.Fatal(err)
	}
	history, err := db.History(ctx, cmdb.KindDevice, "d2")
	if err != nil {
		t.Fatal(err)
	}
	var story []string
	for _, c := range history {
		story = append(story, c.Action+" by "+c.Actor)
	}
	if diff := cmp.Diff([]string{"create by test", "acquire by exec-1", "serve by flow", "hold by exec-3", "mark_faulty by drift", "retire by ann", "delete by ann"}, story); diff != "" {
		t.Error(diff)
	}
	if history[2].Reason != "expand" || history[2].Execution != "exec-1" || history[4].Reason != "disk gone" {
		t.Errorf("reason and execution are kept: %+v", history)
	}
}

func TestAcquireIsIdempotent(t *testing.T) {
	t.Parallel()
	db := shop(t)
	ctx := t.Context()
	request := cmdb.AcquireRequest{Owner: "e", Key: "k", Count: 2}
	first, err := db.Acquire(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	again, err := db.Acquire(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Error(diff)
	}
	other := request
	other.Count = 1
	if _, err := db.Acquire(ctx, other); !errors.Is(err, cmdb.ErrKeyReused) {
		t.Errorf("one key, two requests: %v", err)
	}
	var lack *cmdb.NoDeviceError
	if _, err := db.Acquire(ctx, cmdb.AcquireRequest{Owner: "f", Key: "k", Count: 3, City: "shenzhen"}); !errors.As(err, &lack) || lack.Idle != 1 || lack.IdleTotal != 2 {
		t.Errorf("too few: %v", err)
	}
	if _, err := db.Release(ctx, "e", names(first)); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Acquire(ctx, request); !errors.Is(err, cmdb.ErrEnded) {
		t.Errorf("a late duplicate after the release: %v", err)
	}
}

func TestExpiredHoldsGoBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := shop(t)
		ctx := t.Context()
		if _, err := db.Acquire(ctx, cmdb.AcquireRequest{Owner: "e", Key: "k", Module: "shop.cart", Names: []string{"d1", "d2"}, TTL: time.Minute}); err != nil {
			t.Fatal(err)
		}
		if err := db.Serve(ctx, "e", "d2", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		if _, err := db.Hold(ctx, "f", []string{"d2"}, 20*time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if err := db.Renew(ctx, "e", []string{"d1"}, time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if d, _ := db.Device("d1"); d.State != cmdb.Held {
			t.Errorf("a renewed hold ended: %+v", d)
		}
		if d, _ := db.Device("d2"); d.State != cmdb.InService || d.Module != "shop.cart" {
			t.Errorf("an expired Hold goes back into service: %+v", d)
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if d, _ := db.Device("d1"); d.State != cmdb.Idle || d.Holder != "" || d.Module != "" {
			t.Errorf("an expired hold goes back to idle: %+v", d)
		}
	})
}

func TestRequestsAreChecked(t *testing.T) {
	t.Parallel()
	db := shop(t)
	for want, request := range map[string]cmdb.AcquireRequest{
		"Owner is empty":     {Key: "k", Count: 1},
		"Key is empty":       {Owner: "e", Count: 1},
		"Count is -1":        {Owner: "e", Key: "k", Count: -1},
		"there are no Names": {Owner: "e", Key: "k"},
		"more than the 1":    {Owner: "e", Key: "k", Count: 2, Names: []string{"d1"}},
		"TTL is -1ns":        {Owner: "e", Key: "k", Count: 1, TTL: -1},
		`"d1" twice`:         {Owner: "e", Key: "k", Names: []string{"d1", "d1"}},
	} {
		if _, err := db.Acquire(t.Context(), request); !errors.Is(err, cmdb.ErrRequest) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if _, err := db.Acquire(t.Context(), cmdb.AcquireRequest{Owner: "e", Key: "k", Names: []string{"nope"}}); !errors.Is(err, cmdb.ErrNotFound) {
		t.Errorf("no such device: %v", err)
	}
	if _, err := db.Acquire(t.Context(), cmdb.AcquireRequest{Owner: "e", Key: "k", Count: 1, Module: "nope"}); !errors.Is(err, cmdb.ErrNotFound) {
		t.Errorf("no such module: %v", err)
	}
	if err := db.Renew(t.Context(), "e", []string{"d1"}, 0); !errors.Is(err, cmdb.ErrRequest) {
		t.Errorf("renew for no time: %v", err)
	}
	if _, err := db.Hold(t.Context(), "", nil, 0); !errors.Is(err, cmdb.ErrRequest) {
		t.Errorf("hold for nobody: %v", err)
	}
	if _, err := db.Plan(t.Context(), nil); !errors.Is(err, cmdb.ErrRequest) {
		t.Errorf("plan of nothing: %v", err)
	}
	if _, err := db.Plan(t.Context(), cmdb.Dir("testdata/nope")); err == nil {
		t.Error("plan of a folder that is not there")
	}
}

// An acquisition is remembered against late duplicates, and forgotten when that is over.
func TestAcquisitionsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := runConfig(t, cmdb.Config{Store: memstore.New(), ExpireEvery: 10 * time.Minute})
		defer db.stop()
		apply(t, db.DB, cmdb.Dir("testdata/site"))
		for _, key := range []string{"released", "held"} {
			if _, err := db.Acquire(t.Context(), cmdb.AcquireRequest{Owner: "e", Key: key, Count: 1, TTL: 1000 * time.Hour}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := db.Release(t.Context(), "e", []string{"d1"}); err != nil {
			t.Fatal(err)
		}
		kept := func() int {
			objects, _, err := db.List(cmdb.KindAcquisition, cmdb.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return len(objects)
		}
		time.Sleep(23 * time.Hour)
		synctest.Wait()
		if n := kept(); n != 2 {
			t.Errorf("within a day: %d acquisitions", n)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if n := kept(); n != 1 {
			t.Errorf("after a day: %d acquisitions, want the one that still holds", n)
		}
	})
}

// An acquisition is undone by its key, whether its answer was lost, it never happened, or it went further.
func TestAnAcquisitionIsUndoneByItsKey(t *testing.T) {
	t.Parallel()
	db := shop(t)
	ctx := t.Context()
	release := func(key string, want ...string) {
		t.Helper()
		got, err := db.ReleaseAcquired(ctx, "e", key)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("release of %s: %v, %v; want %v", key, got, err, want)
		}
	}
	request := cmdb.AcquireRequest{Owner: "e", Key: "lost", Module: "shop.cart", Count: 2}
	if _, err := db.Acquire(ctx, request); err != nil {
		t.Fatal(err)
	}
	release("lost", "d1", "d2")
	release("lost")
	request.Key = "never"
	release("never")
	if _, err := db.Acquire(ctx, request); !errors.Is(err, cmdb.ErrEnded) {
		t.Errorf("an acquire after its undo: %v", err)
	}
	request.Key = "further"
	if _, err := db.Acquire(ctx, request); err != nil {
		t.Fatal(err)
	}
	if err := db.Serve(ctx, "e", "d1", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Hold(ctx, "e", []string{"d1"}, time.Minute); err != nil { // undoes Serve
		t.Fatal(err)
	}
	release("lost") // a duplicate leaves another acquisition alone
	release("further", "d1", "d2")
}
