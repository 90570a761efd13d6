package device

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"

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

// tmp is where the call keeps what it fetches.
func (c *call) tmp() string { return path.Join(own, "tmp", keyDir(c.Key)) }

// fetch brings a blob into the tools' folder, checked against its digest. The caller closes it; the
// call's end removes it.
func (c *call) fetch(ctx context.Context, digits string) (file *os.File, err error) {
	if err := need(c.Blobs != nil, "blob source", "set ZHIYUN_SERVER to the server's target"); err != nil {
		return nil, err
	}
	blob, err := c.Blobs.Open(ctx, "sha256:"+digits)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	dir := c.tmp()
	if err := c.root.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	p := path.Join(dir, digits)
	if file, err = c.root.OpenFile(p, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	moment()
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(file, hash), &bounded{blob, c.MaxBlob, "sha256:" + digits})
	if err == nil && hex.EncodeToString(hash.Sum(nil)) != digits {
		err = later("blob.digest", "the server sent sha256:%x for sha256:%s", hash.Sum(nil), digits)
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fetch sha256:%s: %w", digits, err), file.Close())
	}
	return file, nil
}
