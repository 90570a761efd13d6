package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// The JSON of bench is a contract: name, value, unit, floor, against, ratio.
func TestBenchPrintsRows(t *testing.T) {
	out, err := run(t, "bench", "gray", "scale", "--span", "1ms", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if len(rows) < 3 {
		t.Fatalf("%d rows, want those of gray and scale", len(rows))
	}
	for _, row := range rows {
		if len(row) != 6 || row["name"] == "" || row["unit"] == "" || row["against"] == "" {
			t.Errorf("row %v", row)
		}
		for _, field := range []string{"value", "floor", "ratio"} {
			if number, ok := row[field].(float64); !ok || number <= 0 {
				t.Errorf("row %v: %s is %v", row["name"], field, row[field])
			}
		}
	}
	out, err = run(t, "bench", "scale", "--span", "1ms")
	if err != nil || !strings.HasPrefix(out, "NAME") || !strings.Contains(out, "scale.place.10000") {
		t.Errorf("table: %v\n%s", err, out)
	}
}
