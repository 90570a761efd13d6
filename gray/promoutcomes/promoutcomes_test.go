package promoutcomes_test

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/gray/promoutcomes"
)

// prometheus answers the two default queries as a server would.
func prometheus(t *testing.T, broken *bool) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.FormValue("query")
		switch {
		case *broken:
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"status":"error","errorType":"timeout","error":"query timed out"}`)
		case !strings.Contains(query, `proxy="shop.cart"`) || !strings.Contains(query, "[45s]"):
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
		case strings.Contains(query, "5xx"):
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"server":"new1"},"value":[1000,"3.2"]}]}}`)
		default:
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[
				{"metric":{"server":"new1"},"value":[1000,"99.7"]},{"metric":{"server":"old1"},"value":[1000,"1000"]},{"metric":{"server":"idle"},"value":[1000,"NaN"]}]}}`)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	broken := false
	o, err := promoutcomes.New(promoutcomes.Config{URL: prometheus(t, &broken)})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1000, 0)
	got, complete, err := o.Outcomes(t.Context(), "shop.cart", now.Add(-time.Minute), now)
	if err != nil || !complete {
		t.Fatalf("complete %v, %v", complete, err)
	}
	slices.SortFunc(got, func(a, b gray.MemberOutcome) int { return cmp.Compare(a.ID, b.ID) })
	want := []gray.MemberOutcome{{ID: "new1", Requests: 100, Failures: 3, Reports: 3}, {ID: "old1", Requests: 1000, Reports: 3}}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if got, _, err := o.Outcomes(t.Context(), "shop.cart", now.Add(-20*time.Second), now); err != nil || got != nil {
		t.Errorf("a window of one sample: %v, %v; want nothing", got, err)
	}
	broken = true
	if _, _, err := o.Outcomes(t.Context(), "shop.cart", now.Add(-time.Minute), now); err == nil || !strings.Contains(err.Error(), "query timed out") {
		t.Errorf("a broken server: %v", err)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	_, err := promoutcomes.New(promoutcomes.Config{URL: "prometheus:9090", Requests: "sum(x)", Scrape: -1})
	for _, text := range []string{"prometheus:9090", "Requests", "Scrape"} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("New's error does not name %s: %v", text, err)
		}
	}
}
