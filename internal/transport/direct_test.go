package transport_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/certs"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// directly serves handler, and dials it for direct streams.
func directly(t *testing.T, server *transport.Server, grace time.Duration) (open func(ctx context.Context, body io.Reader) (*http.Response, error), stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return directlyAt(t, server, grace, listener, transport.DialConfig{Target: "http://" + listener.Addr().String(), Token: "secret"})
}

func directlyAt(t *testing.T, server *transport.Server, grace time.Duration, listener net.Listener, config transport.DialConfig) (open func(ctx context.Context, body io.Reader) (*http.Response, error), stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(ctx, listener, grace); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); serving.Wait() })
	t.Cleanup(stop)
	config.Direct = []string{"/stream"}
	client, base, err := transport.Dial(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return func(ctx context.Context, body io.Reader) (*http.Response, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/stream", body)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/connect+proto")
		return client.Do(request)
	}, stop
}

// echo answers each line with itself, and says on ended how the peer's body ended.
func echo(ended chan<- error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.Header().Set("Version", fmt.Sprint(r.ProtoMajor, " ", transport.Conn(r.Context()) != nil, " ", r.Header.Get("Authorization"), r.Header.Get("Upgrade")))
		lines := bufio.NewReader(r.Body)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				ended <- err
				return
			}
			io.WriteString(w, line)
			w.(http.Flusher).Flush()
		}
	}
}

func TestDirectStream(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	open, _ := directly(t, transport.NewServer(echo(ended)), time.Second)
	reader, writer := io.Pipe()
	type opened struct {
		response *http.Response
		err      error
	}
	got := make(chan opened, 1)
	go func() {
		response, err := open(t.Context(), reader)
		got <- opened{response, err}
	}()
	o := <-got
	if o.err != nil {
		t.Fatal(o.err)
	}
	defer o.response.Body.Close()
	if v := o.response.Header.Get("Version"); v != "2 true Bearer secret" || o.response.ProtoMajor != 2 || o.response.Header.Get("Upgrade") != "" {
		t.Errorf("the handler saw %q, the client HTTP/%d", v, o.response.ProtoMajor)
	}
	lines := bufio.NewReader(o.response.Body)
	for _, line := range []string{"one\n", strings.Repeat("x", 300_000) + "\n", "three\n"} {
		go io.WriteString(writer, line)
		if back, err := lines.ReadString('\n'); back != line {
			t.Fatalf("%d bytes came back of %d, %v", len(back), len(line), err)
		}
	}
	writer.Close()
	if err := <-ended; err != io.EOF {
		t.Errorf("the handler heard %v of a body that ended", err)
	}
	if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
		t.Errorf("after the handler returned: %q, %v", rest, err)
	}
}

// A handler can tell a peer that went away from one that was done.
func TestDirectStreamIsCut(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(response *http.Response, cancel func()){
		"the body is closed":   func(response *http.Response, _ func()) { response.Body.Close() },
		"the call is canceled": func(_ *http.Response, cancel func()) { cancel() },
	} {
		ended := make(chan error, 1)
		open, _ := directly(t, transport.NewServer(echo(ended)), time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		reader, writer := io.Pipe()
		response, err := open(ctx, reader)
		if err != nil {
			t.Fatal(err)
		}
		cut(response, cancel)
		if err := <-ended; errors.Is(err, io.EOF) || err == nil {
			t.Errorf("%s: the handler heard %v", name, err)
		}
		if _, err := io.ReadAll(response.Body); err == nil {
			t.Errorf("%s: the client can read on", name)
		}
		response.Body.Close()
		if _, err := writer.Write([]byte("x")); err == nil {
			t.Errorf("%s: the client can write on", name)
		}
		cancel()
	}
}

// Over TLS a direct stream is one too, and brings the client's certificate.
func TestDirectStreamOverTLS(t *testing.T) {
	t.Parallel()
	files, err := certs.Make(t.TempDir(), []string{"127.0.0.1"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	client, err := transport.ClientFiles{CA: files[0], Cert: files[1], Key: files[2]}.TLS()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(files[1], files[2])
	if err != nil {
		t.Fatal(err)
	}
	cas, err := certs.ReadBundle(files[0])
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	for _, ca := range cas {
		trusted.AddCert(ca)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trusted, NextProtos: []string{"h2", "http/1.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	open, _ := directlyAt(t, transport.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%T %d", w, len(r.TLS.PeerCertificates))
	})), time.Second, listener, transport.DialConfig{Target: "https://" + listener.Addr().String(), TLS: client})
	response, err := open(t.Context(), strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got, err := io.ReadAll(response.Body); string(got) != "*transport.directStream 1" || err != nil {
		t.Errorf("the handler answered by a %s, %v", got, err)
	}
}

// Who may not have the stream is told so, and where the server knows no direct streams it is one of HTTP/2.
func TestDirectStreamIsRefused(t *testing.T) {
	t.Parallel()
	refuse := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Version", fmt.Sprint(r.ProtoMajor))
		http.Error(w, "not you", http.StatusForbidden)
	}
	old := func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor < 2 || r.Header.Get("Upgrade") != "" {
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
			return
		}
		echo(make(chan error, 1))(w, r)
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		known   bool
		status  int
		body    string
	}{
		"refused":          {refuse, true, http.StatusForbidden, "not you\n"},
		"refused, old":     {refuse, false, http.StatusForbidden, "not you\n"},
		"not known of":     {old, false, http.StatusOK, "line\n"},
		"known of, served": {old, true, http.StatusOK, "line\n"},
	} {
		server := transport.NewServer(test.handler)
		if !test.known {
			server = transport.NewOldServer(test.handler)
		}
		open, _ := directly(t, server, time.Second)
		response, err := open(t.Context(), strings.NewReader("line\n"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != test.status || string(body) != test.body || err != nil || response.ProtoMajor != 2 {
			t.Errorf("%s: HTTP/%d %d %q, %v", name, response.ProtoMajor, response.StatusCode, body, err)
		}
	}
	client, base, err := transport.Dial(transport.DialConfig{Target: "http://127.0.0.1:1", Direct: []string{"/stream"}})
	if err != nil {
		t.Fatal(err)
	}
	if response, err := client.Post(base+"/stream", "application/connect+proto", strings.NewReader("line\n")); err == nil {
		response.Body.Close()
		t.Error("there is a server where there should be none")
	}
}

// A body that the handler closes is read no more; the handler can still say why.
func TestDirectStreamIsClosedByHandler(t *testing.T) {
	t.Parallel()
	read := make(chan error, 1)
	open, _ := directly(t, transport.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		var reading sync.WaitGroup
		reading.Go(func() {
			_, err := r.Body.Read(make([]byte, 1))
			read <- err
		})
		r.Body.Close()
		reading.Wait()
		io.WriteString(w, "go elsewhere")
	})), time.Second)
	reader, writer := io.Pipe()
	defer writer.Close()
	response, err := open(t.Context(), reader)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := <-read; !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("the handler read %v", err)
	}
	if why, err := io.ReadAll(response.Body); string(why) != "go elsewhere" || err != nil {
		t.Errorf("the client read %q, %v", why, err)
	}
}

// A server that stops waits for its direct streams, and ends those that do not end by themselves.
func TestDirectStreamsAreDrained(t *testing.T) {
	t.Parallel()
	for name, grace := range map[string]time.Duration{"by themselves": time.Minute, "cut": time.Millisecond} {
		stopping := make(chan struct{})
		over := make(chan error, 1)
		open, stop := directly(t, transport.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			if grace > time.Second {
				<-stopping
				over <- nil
				return
			}
			_, err := r.Body.Read(make([]byte, 1))
			<-r.Context().Done()
			over <- err
		})), grace)
		reader, writer := io.Pipe()
		response, err := open(t.Context(), reader)
		if err != nil {
			t.Fatal(err)
		}
		var stopped sync.WaitGroup
		stopped.Go(stop)
		close(stopping)
		stopped.Wait()
		select {
		case err := <-over:
			if (err != nil) != (grace < time.Second) {
				t.Errorf("%s: the handler heard %v", name, err)
			}
		default:
			t.Errorf("%s: the server was gone before its stream", name)
		}
		response.Body.Close()
		writer.Close()
		if _, err := open(t.Context(), strings.NewReader("")); err == nil {
			t.Errorf("%s: the server still answers", name)
		}
	}
}

// A peer that takes nothing is cut, and does not hold the handler.
func TestDirectStreamOfSlowReader(t *testing.T) {
	t.Parallel()
	over := make(chan error, 1)
	open, _ := directly(t, transport.NewServerWithin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				over <- err
				return
			}
			w.(http.Flusher).Flush()
		}
	}), time.Minute, 50*time.Millisecond), time.Second)
	reader, writer := io.Pipe()
	defer writer.Close()
	response, err := open(t.Context(), reader)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := <-over; err == nil {
		t.Error("the handler was not told")
	}
}

// A silent body goes on for as long as its peer says that it lives; one that does not is gone.
func TestDirectStreamOfDeadPeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		body, writer := io.Pipe()
		stop := transport.SendRecords(far, body, 5*time.Second)
		in := transport.ReadRecords(near, 10*time.Second)
		began := time.Now()
		time.AfterFunc(time.Hour, func() { io.WriteString(writer, "late") })
		got := make([]byte, 10)
		if n, err := in.Read(got); string(got[:n]) != "late" || err != nil || time.Since(began) != time.Hour {
			t.Errorf("after %v: %q, %v", time.Since(began), got[:n], err)
		}
		stop() // as a process that hangs: the connection stays
		began = time.Now()
		if _, err := in.Read(got); err == nil || !strings.Contains(err.Error(), "nothing was heard") || time.Since(began) > 10*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		far.Close()
		near.Close()
	})
}

// What a body is cut into does not matter, and nothing that comes in its place is taken for it.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("\x00\x03abc\xff\xff"))
	f.Add([]byte("\x00\x00\x00\x01a\x00\x00\x00\x01b\xff\xffmore"))
	f.Add([]byte("\x10\x00too long"))
	f.Add([]byte("\x00\x05cut"))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		near, far := net.Pipe()
		var writing sync.WaitGroup
		writing.Go(func() {
			_, _ = far.Write(sent) // as far as it is read
			far.Close()
		})
		got, err := io.ReadAll(transport.ReadRecords(near, time.Minute))
		near.Close()
		writing.Wait()
		var want []byte
		whole := false
		for rest := sent; len(rest) >= 2 && !whole; {
			n := int(rest[0])<<8 | int(rest[1])
			rest = rest[2:]
			if whole = n == 0xffff; whole || n > 2048 {
				break
			}
			n = min(n, len(rest))
			want, rest = append(want, rest[:n]...), rest[n:]
		}
		if string(got) != string(want) || (err == nil) != whole {
			t.Errorf("%x: read %x, %v; want %x, whole: %t", sent, got, err, want, whole)
		}
	})
}
