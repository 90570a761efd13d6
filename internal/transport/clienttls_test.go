package transport_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

func TestClientFiles(t *testing.T) {
	t.Parallel()
	if config, err := (transport.ClientFiles{}).TLS(); config != nil || err != nil {
		t.Errorf("no files: %v, %v", config, err)
	}
	for name, files := range map[string]transport.ClientFiles{
		"no such CA":         {CA: "/nonexistent"},
		"not a CA":           {CA: "clienttls.go"},
		"half a certificate": {Cert: "clienttls.go"},
		"not a certificate":  {Cert: "clienttls.go", Key: "clienttls.go"},
	} {
		if _, err := files.TLS(); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	files := transport.ClientFiles{CA: "a", Key: "k"}
	env := map[string]string{transport.EnvCA: "a", transport.EnvKey: "k"}
	if diff := cmp.Diff(files, transport.FilesFromEnv(func(name string) string { return env[name] })); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"ZHIYUN_TLS_CA=a", "ZHIYUN_TLS_KEY=k"}, files.Env()); diff != "" {
		t.Error(diff)
	}
}
