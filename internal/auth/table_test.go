package auth_test

import (
	"net/http/httptest"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
)

// Whoever may not do a thing may not see what it would do either.
func TestARehearsalNeedsTheRightToAct(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"/zhiyun.control.v1.TokenService/Revoke", "/zhiyun.control.v1.FlowService/Save", "/zhiyun.control.v1.FlowService/Get"} {
		for _, role := range []auth.Role{auth.Operator, auth.Viewer, auth.Tool, auth.Agent, auth.Metrics} {
			id := auth.Identity{Role: role, Name: "x"}
			plain := auth.Allowed(id, httptest.NewRequest("POST", method, nil))
			rehearsed := auth.Allowed(id, httptest.NewRequest("POST", "/rehearsal"+method, nil))
			if (plain == nil) != (rehearsed == nil) {
				t.Errorf("%s as %s: %v; rehearsed: %v", method, role, plain, rehearsed)
			}
		}
	}
}
