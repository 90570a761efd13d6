package device_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/device/devicetest"
)

// Write a configuration file under a key, and take it back by that key.
func ExampleConfigPush() {
	root, err := os.MkdirTemp("", "device")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(root)
	ctx := context.Background()
	env := device.Env{Root: root, Key: "burst-42/config/web-7"}
	in := device.ConfigPushIn{Configs: []device.ConfigFile{{Path: "etc/cart.yaml", Content: "rate: 100\n"}}}

	out, err := device.ConfigPush(ctx, env, in)
	fmt.Println(out.Configs[0].Path, out.Configs[0].Changed, err)
	text, _ := os.ReadFile(filepath.Join(root, "etc/cart.yaml"))
	fmt.Print(string(text))

	undone, err := device.ConfigRestore(ctx, env, device.ConfigRestoreIn{ConfigPushIn: in})
	_, gone := os.Stat(filepath.Join(root, "etc"))
	fmt.Println(undone.State, err, os.IsNotExist(gone))
	// Output:
	// etc/cart.yaml true <nil>
	// rate: 100
	// as_before <nil> true
}

// Run a tool as a process: JSON in, JSON out, a failure by name.
func ExampleRun() {
	root, err := os.MkdirTemp("", "device")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(root)
	env := map[string]string{"ZHIYUN_ROOT": root, "ZHIYUN_KEY": "by-hand-1"}
	var stdout, stderr bytes.Buffer
	exit := device.Run(context.Background(), "config.push", strings.NewReader(`{"configs":[{"path":"../passwd","content":""}]}`),
		&stdout, &stderr, func(name string) string { return env[name] })
	fmt.Println(exit)
	fmt.Print(stdout.String())
	// Output:
	// 1
	// {"error":{"code":"path.outside","message":"path \"../passwd\" is not below the device's root; give a relative path without .."}}
}

func BenchmarkConfigPush(b *testing.B) {
	b.ReportAllocs()
	root := b.TempDir()
	in := device.ConfigPushIn{Configs: []device.ConfigFile{{Path: "etc/cart.yaml", Content: "rate: 100\n"}}}
	for i := 0; b.Loop(); i++ {
		env := device.Env{Root: root, Key: fmt.Sprint("k", i)}
		if _, err := device.ConfigPush(b.Context(), env, in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPackageInstall installs a package of 64 MiB, as the sample module's is.
func BenchmarkPackageInstall(b *testing.B) {
	b.ReportAllocs()
	content := make([]byte, 64<<20)
	for i := range content {
		content[i] = byte(i * i >> 7)
	}
	var blobs devicetest.Blobs
	digest := blobs.Put(devicetest.Tar(b, devicetest.Entry{Name: "bin/sample", Content: string(content), Mode: 0o755}))
	b.SetBytes(int64(len(content)))
	for i := 0; b.Loop(); i++ {
		env := device.Env{Root: b.TempDir(), Key: "k", Blobs: &blobs}
		if _, err := device.PackageInstall(b.Context(), env, device.PackageInstallIn{Name: "p", Version: "1", Digest: digest}); err != nil {
			b.Fatal(err)
		}
	}
}
