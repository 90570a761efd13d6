package main

import (
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/control/controltest"
)

// What is not there ends every verb with 2, is said once, and the answer of a server sends nobody to the help.
func TestWhatIsNotThereIsNamedOnce(t *testing.T) {
	w := controltest.New(t)
	id := asking(t, w, "shop.cart")[0]
	const nobody = "01a205a8-8d1f-7389-b387-491a9c7914f6"
	for args, says := range map[string]string{
		"flow skip " + id + " once":               `has no step "once"; did you mean "one"?`,
		"flow skip " + id + " once --dry-run":     `has no step "once"`,
		"flow fail " + id + " once --reason x":    `has no step "once"`,
		"flow back " + id + " once":               `has no step "once"`,
		"flow retry-step " + id + " once":         `has no step "once"`,
		"flow approve " + id + " once":            `has no step "once"`,
		"flow choose " + id + " once --case else": `has no step "once"`,
		"flow logs " + id + " once":               `has no step "once"`,
		"flow show " + nobody:                     nobody,
		"flow logs " + nobody:                     nobody,
		"flow show --timing " + nobody:            nobody,
		"flow watch " + nobody:                    nobody,
		"flow export " + nobody:                   nobody,
		"flow cancel " + nobody:                   nobody,
		"flow skip " + nobody + " one":            nobody,
		"flow skip " + nobody + " one --dry-run":  nobody,
		"flow run nosuch":                         `no flow is called "nosuch"`,
		"flow run nosuch a=1":                     `no flow is called "nosuch"`,
		"flow run nosuch --dry-run":               `no flow is called "nosuch"`,
		"flow run ask@7 module=m":                 `flow "ask" has no version 7`,
		"flow plan nosuch":                        `no flow is called "nosuch"`,
		"flow graph nosuch":                       `no flow is called "nosuch"`,
	} {
		out, err := run(t, append(strings.Fields(args), "--server", w.Target)...)
		switch {
		case err == nil || codeOf(err) != exitUsage:
			t.Errorf("%s ends with %d: %v\n%s", args, codeOf(err), err, out)
		case !strings.Contains(err.Error(), says) || strings.Count(err.Error(), "not found") > 1 || strings.Contains(err.Error(), "--help"):
			t.Errorf("%s says %q, want %q", args, err, says)
		}
	}
}

// All that is wrong with the parameters of a start is told at once.
func TestEachParameterThatIsWrongIsTold(t *testing.T) {
	w := controltest.New(t)
	if _, err := w.Flow.Save(t.Context(), []byte("flow: typed\nparams: {n: int, m: int, x: string}\nsteps: [{name: one, tool: echo, with: {n: \"${params.n}\"}}]\n")); err != nil {
		t.Fatal(err)
	}
	_, err := run(t, "flow", "run", "typed", "n=two", "m=1.5", "y=1", "--server", w.Target)
	if codeOf(err) != exitUsage {
		t.Fatalf("ends with %d: %v", codeOf(err), err)
	}
	for _, says := range []string{`parameter "n" (int): "two"`, `parameter "m" (int): "1.5"`, `no parameter "y"; it has n, m, x`} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%v\nwant %q as well", err, says)
		}
	}
}
