package scalehttp_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/scale"
	"github.com/zhiyun-ops/zhiyun/scale/memstore"
	"github.com/zhiyun-ops/zhiyun/scale/scalehttp"
	"github.com/zhiyun-ops/zhiyun/scale/scaletest"
)

func TestHandler(t *testing.T) {
	t.Parallel()
	world := scaletest.NewWorld()
	world.AddModule(scale.Module{Name: "m", Min: 0, Max: 2, Capacity: map[string]float64{"s": 100}}, func(time.Time) float64 { return 0 })
	world.AddDevices("", scale.Candidate{Name: "d1", Type: "s"}, scale.Candidate{Name: "d2", Type: "s"}, scale.Candidate{Name: "d3", Type: "s"})
	ctl, err := scale.New(scale.Config{Store: memstore.New(), Modules: world, Metrics: world, Devices: world, Launcher: world})
	if err != nil {
		t.Fatal(err)
	}
	handler := scalehttp.Handler(ctl)
	for _, step := range []struct { // in this order
		method, path, body string
		status             int
		has                string
	}{
		{"GET", "/modules", "", 200, `"modules": []`},
		{"GET", "/modules/m", "", 404, "no such module"},
		{"POST", "/modules/m/out", `{"actor":"li","count":1,"dry_run":true}`, 200, `"d1"`},
		{"GET", "/modules/m", "", 404, "no such module"}, // a dry run leaves nothing behind
		{"POST", "/modules/m/out", `{"actor":"li","count":2}`, 200, `"state": "planned"`},
		{"GET", "/modules/m", "", 200, `"by.hand"`},
		{"POST", "/modules/m/out", `{"actor":"li","count":1}`, 409, "Max 2"},
		{"POST", "/modules/m/in", `{"actor":"li","count":9}`, 409, "refused"},
		{"POST", "/modules/m/out", `{"actor":"li"}`, 409, "at least 1"},
		{"POST", "/modules/m/pause", `{"reason":"x"}`, 400, "say who asks"},
		{"POST", "/modules/m/pause", `{"actor":"li","reason":"x"}`, 200, ""},
		{"GET", "/modules/m", "", 200, `"paused": true`},
		{"POST", "/modules/m/resume", `{"actor":"li"}`, 200, ""},
		{"POST", "/modules/none/pause", `{"actor":"li"}`, 404, "no such module"},
		{"POST", "/modules/m/explode", `{"actor":"li"}`, 404, ""},
	} {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, httptest.NewRequest(step.method, step.path, strings.NewReader(step.body)))
		if recorder.Code != step.status || !strings.Contains(recorder.Body.String(), step.has) {
			t.Errorf("%s %s %s: %d %s; want %d with %q", step.method, step.path, step.body, recorder.Code, recorder.Body, step.status, step.has)
		}
	}
}
