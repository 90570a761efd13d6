package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test binary the program that knows modules and devices, too.
func TestMain(m *testing.M) {
	if os.Getenv("SCALER_TEST_PROGRAM") == "1" && len(os.Args) == 2 && !strings.HasPrefix(os.Args[1], "-") {
		fmt.Println(map[string]string{
			"modules": `{"modules":[{"name":"shop.cart","min":1,"max":8,"capacity":{"s":100},"serving":[{"name":"d1","type":"s","share":100}]}]}`,
			"idle":    `{"devices":[{"name":"d2","type":"s"},{"name":"d3","type":"s"},{"name":"d4","type":"s"}]}`,
			"launch":  `{"id":"run-1"}`,
			"state":   `{"state":"running"}`,
		}[os.Args[1]])
		return
	}
	os.Setenv("SCALER_TEST_PROGRAM", "1") // for the processes started from here
	os.Exit(m.Run())
}

// prometheus answers every range with a load of 250 requests per second.
func prometheus(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, err1 := strconv.ParseFloat(r.FormValue("start"), 64)
		end, err2 := strconv.ParseFloat(r.FormValue("end"), 64)
		if err1 != nil || err2 != nil {
			t.Errorf("query %v: %v, %v", r.Form, err1, err2)
		}
		var values []string
		for at := start; at <= end; at += 30 {
			values = append(values, fmt.Sprintf(`[%f,"250"]`, at))
		}
		fmt.Fprintf(w, `{"status":"success","data":{"result":[{"metric":{},"values":[%s]}]}}`, strings.Join(values, ","))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// The daemon decides on the load it reads, has the order launched, and shows it.
func TestDaemon(t *testing.T) {
	dir, err := os.MkdirTemp("", "scale") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"-listen", socket, "-data", filepath.Join(dir, "data"), "-program", os.Args[0],
			"-prometheus", prometheus(t), "-interval", "50ms"})
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	text := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline) && !strings.Contains(text, "run-1"); {
		select {
		case err := <-ended:
			t.Fatalf("the daemon ended: %v", err)
		case <-time.After(5 * time.Millisecond): // between two looks from outside
		}
		if response, err := client.Get("http://scale/modules/shop.cart"); err == nil {
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			text = string(body)
		}
	}
	for _, want := range []string{`"run-1"`, `"load.high"`, `"d3"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the module's status has no %s:\n%s", want, text)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
