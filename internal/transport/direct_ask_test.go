package transport_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// said serves handler, and says head to it as a client does that net/http would not be.
func said(t *testing.T, handler http.HandlerFunc, head string) *net.TCPConn {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	directlyAt(t, transport.NewServer(handler), time.Second, listener, transport.DialConfig{Target: "http://" + listener.Addr().String()})
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, head); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

func TestWhoAsksForADirectStream(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		method, proto, headers, rest string
		switched                     bool
	}{
		"asked":                  {headers: "Connection: keep-alive, upgrade\r\nUpgrade: zhiyun-direct\r\n", switched: true},
		"said at once":           {headers: "Connection: Upgrade\r\nUpgrade: zhiyun-direct\r\n", rest: "\x00\x02a\n\xff\xff", switched: true},
		"HTTP/1.0":               {proto: "HTTP/1.0", headers: "Connection: Upgrade\r\nUpgrade: zhiyun-direct\r\n"},
		"meant for another hop":  {headers: "Connection: close\r\nUpgrade: zhiyun-direct\r\n"},
		"another protocol":       {headers: "Connection: Upgrade\r\nUpgrade: websocket\r\n"},
		"several protocols":      {headers: "Connection: Upgrade\r\nUpgrade: zhiyun-direct\r\nUpgrade: websocket\r\n"},
		"a body":                 {headers: "Connection: Upgrade\r\nUpgrade: zhiyun-direct\r\nContent-Length: 4\r\n", rest: "\x00\x02a\n"},
		"a body of chunks":       {headers: "Connection: Upgrade\r\nUpgrade: zhiyun-direct\r\nTransfer-Encoding: chunked\r\n", rest: "4\r\n\x00\x02a\n\r\n0\r\n\r\n"},
		"a body that is awaited": {headers: "Connection: Upgrade\r\nUpgrade: zhiyun-direct\r\nExpect: 100-continue\r\nContent-Length: 4\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proto := test.proto
			if proto == "" {
				proto = "HTTP/1.1"
			}
			conn := said(t, func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintln(w, "hello")
				if test.switched {
					_, _ = io.Copy(io.Discard, r.Body)
				}
			}, "POST /stream "+proto+"\r\nHost: x\r\nContent-Type: application/connect+proto\r\n"+test.headers+"\r\n"+test.rest)
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			status, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil || strings.Contains(status, " 101 ") != test.switched {
				t.Errorf("the answer is %q, %v", status, err)
			}
		})
	}
}

// A handler that has all that its peer says hears nevertheless when that one is gone.
func TestDirectStreamOfPeerThatLeavesAfterItsEnd(t *testing.T) {
	t.Parallel()
	read, gone := make(chan error, 1), make(chan struct{})
	conn := said(t, func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		read <- err
		<-r.Context().Done()
		close(gone)
	}, "POST /stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+proto\r\nConnection: Upgrade\r\nUpgrade: zhiyun-direct\r\n\r\n\x00\x02a\n\xff\xff\x00\x00")
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	conn.Close()
	<-gone
}

// A stream that was asked for when the server drained, and whose handler came to it too late, never begins: there was no
// connection to cut, and nobody would cut the one that it took.
func TestDirectStreamThatIsLateForTheDrain(t *testing.T) {
	t.Parallel()
	asked, read := make(chan struct{}), make(chan error, 1)
	handler, drain := transport.Direct(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done() // as it is cut
		_, err := r.Body.Read(make([]byte, 1))
		read <- err
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	}))
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, "POST /stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+proto\r\nConnection: Upgrade\r\nUpgrade: zhiyun-direct\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-asked
	over, cancel := context.WithCancel(t.Context())
	cancel()
	drain(over)
	if err := <-read; err == nil || !strings.Contains(err.Error(), "stopped before") {
		t.Errorf("the handler read %v", err)
	}
	if status, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(status, " 503 ") {
		t.Errorf("the answer is %q, %v", status, err)
	}
}
