package cmdb_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/cmdb"
)

// What a document says is bounded, field by field; the fault names the field, its length and the limit.
func TestTextsAreBounded(t *testing.T) {
	t.Parallel()
	db, stop := started()
	defer stop()
	long := strings.Repeat("x", 4097)
	var many strings.Builder
	for i := range 10_001 {
		fmt.Fprintf(&many, "s%d, ", i)
	}
	for _, test := range []struct{ document, field, says string }{
		{"kind: site\nname: a\ncity: " + long, "city", "4097 bytes"},
		{"kind: module\nname: a\nowner: " + long, "owner", "at most 4096"},
		{"kind: module\nname: a\nprocesses: [{name: p, command: [run, " + long + "]}]", "processes[0].command[1]", "4097 bytes"},
		{"kind: module\nname: a\nprocesses: [{name: p, command: [run], env: {A: " + long + "}}]", "processes[0].env.A", "4097 bytes"},
		{"kind: module\nname: a\nscale: {sites: [" + many.String() + "]}", "scale.sites", "10001 elements"},
	} {
		_, err := db.Plan(t.Context(), cmdb.Documents([]byte(test.document)))
		if text := fmt.Sprint(err); !strings.Contains(text, test.field) || !strings.Contains(text, test.says) || len(text) > 2000 {
			t.Errorf("%s: want a fault that says %q, got %.300s", test.field, test.says, text)
		}
	}
	if _, err := db.Plan(t.Context(), cmdb.Documents([]byte("kind: site\nname: a\ncity: "+long[:4096]))); err != nil {
		t.Errorf("a text as long as may be: %.200v", err)
	}
}
