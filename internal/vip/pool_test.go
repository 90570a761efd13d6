package vip_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/vip"
)

var update = flag.Bool("update", false, "record the outcome of the scripts anew")

func TestPoolScripts(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range scripts {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got, err := vip.Play(string(text))
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(path, ".txt") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzStat(f *testing.F) {
	f.Add("# pxname,svname,scur,stot,status,uweight,addr,\nshop,a,1,2,UP,10,127.0.0.1:80,\nshop,BACKEND,1,2,UP,10,,\n")
	f.Add("# pxname,svname\nshop")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := vip.ParseStat(text); err != nil && n > 0 {
			t.Error("servers and an error:", n, err)
		}
	})
}

func BenchmarkPick(b *testing.B) {
	b.ReportAllocs()
	pick := vip.Picker(10)
	for b.Loop() {
		pick()
	}
}
