package grayhttp_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/gray/grayhttp"
	"github.com/zhiyun-ops/zhiyun/gray/graytest"
	"github.com/zhiyun-ops/zhiyun/gray/memstore"
)

func TestHandler(t *testing.T) {
	t.Parallel()
	lb := new(graytest.Balancer)
	ctl, err := gray.New(gray.Config{Store: memstore.New(), Weights: lb, Outcomes: graytest.NewTraffic(lb, 1)})
	if err != nil {
		t.Fatal(err)
	}
	handler := grayhttp.Handler(ctl)
	for _, step := range []struct { // in this order
		method, path, body string
		status             int
		has                string
	}{
		{"GET", "/rollouts", "", 200, `"rollouts": null`},
		{"POST", "/rollouts", `{"id":"r","service":"s","new":[{"id":"a"}]}`, 200, `"state": "queued"`},
		{"POST", "/rollouts", `{"id":"r","service":"s","new":[{"id":"a"}]}`, 200, `"state": "queued"`},
		{"POST", "/rollouts", `{"id":"r","service":"other","new":[{"id":"a"}]}`, 409, "another rollout has this ID"},
		{"POST", "/rollouts", `{"id":"x","new":[]}`, 400, "Rollout.Service is empty"},
		{"POST", "/rollouts", `{"ident":"x"}`, 400, "unknown field"},
		{"POST", "/rollouts", `nonsense`, 400, "not the JSON"},
		{"GET", "/rollouts/r", "", 200, `"code": "created"`},
		{"GET", "/rollouts/none", "", 404, "no such rollout"},
		{"POST", "/rollouts/r/promote", `{"actor":"li"}`, 409, "only a running or paused one"},
		{"POST", "/rollouts/r/abort", `{}`, 400, "say who asks"},
		{"POST", "/rollouts/r/abort", `{"actor":"li","reason":"smoke"}`, 200, `"state": "aborting"`},
		{"POST", "/rollouts/r/explode", `{"actor":"li"}`, 404, ""},
		{"DELETE", "/rollouts/r", "", 405, ""},
	} {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, httptest.NewRequest(step.method, step.path, strings.NewReader(step.body)))
		if recorder.Code != step.status || !strings.Contains(recorder.Body.String(), step.has) {
			t.Errorf("%s %s %s: %d %s; want %d with %q", step.method, step.path, step.body, recorder.Code, recorder.Body, step.status, step.has)
		}
		if step.status == http.StatusOK && recorder.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: content type %q", step.method, step.path, recorder.Header().Get("Content-Type"))
		}
	}
}
