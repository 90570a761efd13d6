package promload_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/scale"
	"github.com/zhiyun-ops/zhiyun/scale/promload"
)

func TestLoad(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch query := r.FormValue("query"); {
		case strings.Contains(query, "lost"):
			fmt.Fprint(w, `{"status":"success","data":{"result":[{"metric":{},"values":[[1080,"4"]]}]}}`)
		case strings.Contains(query, `"shop.cart"`) && r.FormValue("start") == "1020.000" && r.FormValue("step") == "30":
			fmt.Fprint(w, `{"status":"success","data":{"result":[{"metric":{},"values":[[1020,"100"],[1050,"NaN"],[1080,"300.5"]]}]}}`)
		case strings.Contains(query, "many"):
			fmt.Fprint(w, `{"status":"success","data":{"result":[{"metric":{},"values":[]},{"metric":{},"values":[]}]}}`)
		default:
			fmt.Fprint(w, `{"status":"success","data":{"result":[]}}`)
		}
	}))
	t.Cleanup(server.Close)
	l, err := promload.New(promload.Config{URL: server.URL, Rate: `sum(rate(x{m="$module"}[$step]))`, Lost: `lost{m="$module"}`})
	if err != nil {
		t.Fatal(err)
	}
	from := time.Unix(1000, 0)
	got, err := l.Load(t.Context(), "shop.cart", from, from.Add(90*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	// A moment without a value is not there: it is not zero. I7
	want := []scale.Sample{
		{At: time.Unix(990, 0).UTC(), Rate: 100, Valid: true},
		{At: time.Unix(1050, 0).UTC(), Rate: 300.5, Lost: 4, Valid: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("load (-want +got):\n%s", diff)
	}
	if got, err := l.Load(t.Context(), "none", from, from.Add(time.Minute)); err != nil || len(got) != 0 {
		t.Errorf("an unknown module: %v, %v; want nothing", got, err)
	}
	if _, err := l.Load(t.Context(), "many", from, from.Add(time.Minute)); err == nil {
		t.Error("several series were taken for one")
	}
	if _, err := promload.New(promload.Config{Step: time.Millisecond}); err == nil || !strings.Contains(err.Error(), "Rate") || !strings.Contains(err.Error(), "Step") {
		t.Errorf("New with faults: %v", err)
	}
}
