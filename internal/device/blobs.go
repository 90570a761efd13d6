package device

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// HTTPBlobs fetches blobs from a server: GET /blobs/sha256/HEX.
type HTTPBlobs struct {
	client *http.Client
	base   string
}

// NewHTTPBlobs returns blobs of the server at target, as in transport.DialConfig. It opens no connection.
func NewHTTPBlobs(target, token string, config *tls.Config) (*HTTPBlobs, error) {
	client, base, err := transport.Dial(transport.DialConfig{Target: target, Token: token, TLS: config})
	if err != nil {
		return nil, fail("env.server", "%v", err)
	}
	return &HTTPBlobs{client, base}, nil
}

// Close ends idle connections.
func (b *HTTPBlobs) Close() { b.client.CloseIdleConnections() }

// Open implements Blobs.
func (b *HTTPBlobs) Open(ctx context.Context, digest string) (io.ReadCloser, error) {
	digits, err := hexDigest(digest)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.base+"/blobs/sha256/"+digits, nil)
	if err != nil {
		return nil, err
	}
	response, err := b.client.Do(request)
	if err != nil {
		return nil, later("blob.unreachable", "fetch sha256:%s: %v", digits, err)
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 500))
	response.Body.Close()
	switch {
	case response.StatusCode == http.StatusNotFound:
		return nil, fail("blob.not_found", "the server has no sha256:%s; push it first", digits)
	case response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden:
		return nil, fail("blob.denied", "the server refused sha256:%s (%s); look at the token", digits, response.Status)
	}
	return nil, later("blob.unreachable", "fetch sha256:%s: %s: %s", digits, response.Status, text)
}

// bounded fails once more than n bytes were read.
type bounded struct {
	io.Reader
	left int64
	what string
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fail("blob.too_large", "%s is larger than allowed", b.what)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = later("blob.unreachable", "read %s: %v", b.what, err)
	}
	return n, err
}
