package dev_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/dev"
)

func claim(t *testing.T, claim func() (*dev.Network, error)) *dev.Network {
	t.Helper()
	got, err := claim()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := got.Close(); err != nil {
			t.Error(err)
		}
	})
	return got
}

// Two environments on one machine never have the same addresses, and one that comes back has those it had, unless they were taken.
func TestNoTwoEnvironmentsShareANetwork(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("there is one network where 127/8 is not this machine's as it comes")
	}
	a, b := t.TempDir(), filepath.Join(t.TempDir(), "new")
	first := claim(t, func() (*dev.Network, error) { return dev.ClaimFor(a) })
	second := claim(t, func() (*dev.Network, error) { return dev.ClaimFor(b) })
	third := claim(t, func() (*dev.Network, error) { return dev.Claim(first.Number) })
	if first.Number == second.Number || second.Number == third.Number || first.Number == third.Number {
		t.Fatalf("taken twice: %s, %s, %s", first, second, third)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	// Others may claim networks meanwhile, but not this one: it is far from where they begin.
	if err := os.WriteFile(filepath.Join(b, "network"), []byte("243\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again := claim(t, func() (*dev.Network, error) { return dev.ClaimFor(b) }); again.Number != 243 {
		t.Errorf("it comes back as %s, want 127.243.0.0/16", again)
	}
	if _, err := dev.Claim(251); err == nil {
		t.Error("a network there is not was taken")
	}
}
