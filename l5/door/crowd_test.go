package door_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5/door"
)

// crowded serves /quick, and /slow until released, to callers with a token, for at most most connections.
func crowded(t *testing.T, most int) (addr string, release func(), slow <-chan struct{}) {
	t.Helper()
	crowd, err := door.ListenHTTP("127.0.0.1:0", most)
	if err != nil {
		t.Fatal(err)
	}
	released, started := make(chan struct{}), make(chan struct{}, 100)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /quick", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
		started <- struct{}{}
		select {
		case <-released:
		case <-r.Context().Done():
		}
		io.WriteString(w, "ok")
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- transport.NewServer(door.Guard(door.Attend(mux), "secret", nil)).Serve(ctx, crowd, time.Second)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return crowd.Addr().String(), func() { close(released) }, started
}

// caller has one connection.
type caller struct {
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, addr string) *caller {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &caller{conn, bufio.NewReader(conn)}
}

func (c *caller) send(path, token string) error {
	_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n\r\n", path, token)
	return err
}

func (c *caller) answer() (int, error) {
	c.SetReadDeadline(time.Now().Add(time.Minute))
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}

func (c *caller) ask(t *testing.T, path, token string, want int) {
	t.Helper()
	err := c.send(path, token)
	if err == nil {
		var code int
		if code, err = c.answer(); code != want {
			t.Fatalf("GET %s: %d, %v; want %d", path, code, err, want)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Connections that say nothing, stop in the middle of what they say, or say what lets nobody in, keep no place that another
// wants; a request that is under way keeps its own.
func TestCrowd(t *testing.T) {
	t.Parallel()
	const most = 8
	addr, release, started := crowded(t, most)
	long := dial(t, addr)
	if err := long.send("/slow", "secret"); err != nil {
		t.Fatal(err)
	}
	<-started
	for i := range 100 {
		idle := dial(t, addr)
		switch i % 3 {
		case 1:
			fmt.Fprint(idle, "GET /quick HTTP/1.1\r\nHost: 127")
		case 2:
			idle.send("/slow", "guessed")
		}
		if i%10 == 0 {
			dial(t, addr).ask(t, "/quick", "secret", http.StatusOK)
		}
	}
	dial(t, addr).ask(t, "/quick", "wrong", http.StatusUnauthorized)
	release()
	if code, err := long.answer(); code != http.StatusOK || err != nil {
		t.Errorf("the request that was under way: %d, %v", code, err)
	}
	long.ask(t, "/quick", "secret", http.StatusOK) // its connection is still there
}

// While every place is taken by a request, whoever comes waits for one of them to end.
func TestCrowdOfTheBusyWaits(t *testing.T) {
	t.Parallel()
	const most = 4
	addr, release, started := crowded(t, most)
	var busy []*caller
	for range most {
		c := dial(t, addr)
		if err := c.send("/slow", "secret"); err != nil {
			t.Fatal(err)
		}
		<-started
		busy = append(busy, c)
	}
	late := dial(t, addr)
	if err := late.send("/quick", "secret"); err != nil {
		t.Fatal(err)
	}
	release()
	for i, c := range append(busy, late) {
		if code, err := c.answer(); code != http.StatusOK || err != nil {
			t.Errorf("caller %d: %d, %v", i, code, err)
		}
	}
}
