// Package inbound is the serving side of streams: it receives beside the handler, and can stop receiving, which a
// handler of net/http cannot do on its own while the peer is silent.
package inbound

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"connectrpc.com/connect"
)

type bodyKey struct{}

// body is a request's body that may be closed twice and from anywhere; closing it ends a read that waits.
type body struct {
	io.ReadCloser
	once sync.Once
	err  error
}

func (b *body) Close() error {
	b.once.Do(func() { b.err = b.ReadCloser.Close() })
	return b.err
}

// Handler makes Pump's stop and Closer work for the streams that next serves.
func Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := &body{ReadCloser: r.Body}
		r = r.WithContext(context.WithValue(r.Context(), bodyKey{}, b))
		r.Body = b
		next.ServeHTTP(w, r)
	})
}

// Pump receives until receive fails, in a goroutine of its own. Messages come one by one; the failure, io.EOF
// included, comes on ended. Stop ends it and waits for it; ctx is the handler's.
func Pump[T any](ctx context.Context, receive func() (*T, error)) (messages <-chan *T, ended <-chan error, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	out, fail := make(chan *T), make(chan error, 1)
	var pump sync.WaitGroup
	pump.Go(func() {
		for {
			message, err := receive()
			if err != nil {
				fail <- err
				return
			}
			select {
			case out <- message:
			case <-ctx.Done():
				fail <- ctx.Err()
				return
			}
		}
	})
	return out, fail, func() {
		cancel()
		Closer(ctx)()
		pump.Wait()
	}
}

// Closer returns what ends a receive that waits, of the stream whose handler's context ctx is.
func Closer(ctx context.Context) func() {
	b, ok := ctx.Value(bodyKey{}).(*body)
	if !ok {
		return func() {}
	}
	return func() { b.Close() }
}

// Ended turns the error that ended a stream into what the handler returns: a peer that closed its side, or went away,
// is no error.
func Ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) || connect.CodeOf(err) == connect.CodeCanceled {
		return nil
	}
	return err
}
