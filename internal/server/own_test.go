package server_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/server"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

func TestARecordHasOneServer(t *testing.T) {
	t.Parallel()
	record, first, second := store.NewMemory(), t.TempDir(), t.TempDir()
	for range 2 { // the second time after a restart
		if err := server.Own(t.Context(), record, first); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Own(t.Context(), record, second); err == nil || !strings.Contains(err.Error(), first) {
		t.Errorf("another server on the record: %v", err)
	}
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(first, moved); err != nil {
		t.Fatal(err)
	}
	if err := server.Own(t.Context(), record, moved); err != nil {
		t.Errorf("a folder that was moved: %v", err)
	}
}

// What runs must not be looked at by a second process before it finds out.
func TestASecondServerOpensNothing(t *testing.T) {
	t.Parallel()
	folder := dir(t)
	start(t, server.Config{Dir: folder})
	second, err := server.New(server.Config{Dir: folder, Etcd: []string{"http://127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := second.Run(ctx); err == nil || !strings.Contains(err.Error(), "another server runs in "+folder) {
		t.Errorf("the second one: %v", err)
	}
}
