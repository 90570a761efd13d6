package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb/controlpbconnect"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// Client is the typed client of the API. It is safe for concurrent use.
type Client struct {
	Resources   controlpbconnect.ResourceServiceClient
	Devices     controlpbconnect.DeviceServiceClient
	Flows       controlpbconnect.FlowServiceClient
	Freezes     controlpbconnect.FreezeServiceClient
	Triggers    controlpbconnect.TriggerServiceClient
	Gray        controlpbconnect.GrayServiceClient
	Scale       controlpbconnect.ScaleServiceClient
	Drift       controlpbconnect.DriftServiceClient
	Agents      controlpbconnect.AgentServiceClient
	Registry    controlpbconnect.RegistryServiceClient
	Packages    controlpbconnect.PackageServiceClient
	Files       controlpbconnect.FileServiceClient
	Configs     controlpbconnect.ConfigServiceClient
	Permissions controlpbconnect.PermissionServiceClient
	Notify      controlpbconnect.NotifyServiceClient
	Changes     controlpbconnect.ChangeServiceClient
	Virtual     controlpbconnect.VirtualAddrServiceClient
	Ops         controlpbconnect.OpsServiceClient
	Tokens      controlpbconnect.TokenServiceClient
	Enrolment   controlpbconnect.EnrolServiceClient

	http  *http.Client
	base  string
	plain *Client // of one that rehearses: that which it was made of
}

// Dial returns a client for a target (see transport.DialConfig) and a token, which may be empty over a unix socket. It
// opens no connection.
func Dial(target, token string) (*Client, error) {
	return DialConfig(transport.DialConfig{Target: target, Token: token})
}

// DialConfig is Dial with TLS.
func DialConfig(config transport.DialConfig) (*Client, error) {
	client, base, err := transport.Dial(config)
	if err != nil {
		return nil, err
	}
	return NewClient(client, base), nil
}

// NewClient makes a client of an HTTP client and the base URL of a server.
func NewClient(client *http.Client, base string) *Client {
	limits := connect.WithReadMaxBytes(rpc.MaxMessage)
	return &Client{
		Resources:   controlpbconnect.NewResourceServiceClient(client, base, limits),
		Devices:     controlpbconnect.NewDeviceServiceClient(client, base, limits),
		Flows:       controlpbconnect.NewFlowServiceClient(client, base, limits),
		Freezes:     controlpbconnect.NewFreezeServiceClient(client, base, limits),
		Triggers:    controlpbconnect.NewTriggerServiceClient(client, base, limits),
		Gray:        controlpbconnect.NewGrayServiceClient(client, base, limits),
		Scale:       controlpbconnect.NewScaleServiceClient(client, base, limits),
		Drift:       controlpbconnect.NewDriftServiceClient(client, base, limits),
		Agents:      controlpbconnect.NewAgentServiceClient(client, base, limits),
		Registry:    controlpbconnect.NewRegistryServiceClient(client, base, limits),
		Packages:    controlpbconnect.NewPackageServiceClient(client, base, limits),
		Files:       controlpbconnect.NewFileServiceClient(client, base, limits),
		Configs:     controlpbconnect.NewConfigServiceClient(client, base, limits),
		Permissions: controlpbconnect.NewPermissionServiceClient(client, base, limits),
		Notify:      controlpbconnect.NewNotifyServiceClient(client, base, limits),
		Changes:     controlpbconnect.NewChangeServiceClient(client, base, limits),
		Virtual:     controlpbconnect.NewVirtualAddrServiceClient(client, base, limits),
		Ops:         controlpbconnect.NewOpsServiceClient(client, base, limits),
		Tokens:      controlpbconnect.NewTokenServiceClient(client, base, limits),
		Enrolment:   controlpbconnect.NewEnrolServiceClient(client, base, limits),
		http:        client,
		base:        base,
	}
}

// Close closes idle connections; calls in flight go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Decode reads the document of an answer, as in control.Decode[cmdb.Module](client.Resources.Get(ctx, request)).
func Decode[T any](answer *connect.Response[pb.JSON], err error) (T, error) {
	var out T
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(answer.Msg.Json, &out); err != nil {
		return out, fmt.Errorf("control: the server's document is not a %T: %w", out, err)
	}
	return out, nil
}

// DecodeList reads the documents of one page.
func DecodeList[T any](answer *connect.Response[pb.Listing], err error) (items []T, next string, _ error) {
	if err != nil {
		return nil, "", err
	}
	items = make([]T, len(answer.Msg.Items))
	for i, item := range answer.Msg.Items {
		if err := json.Unmarshal(item, &items[i]); err != nil {
			return nil, "", fmt.Errorf("control: document %d of the server's list is not a %T: %w", i, items[i], err)
		}
	}
	return items, answer.Msg.Next, nil
}

// PushPackage sends an archive to the package store.
func (c *Client) PushPackage(ctx context.Context, name, version string, archive io.Reader, cause *pb.Cause) (center.Package, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := c.Packages.Push(ctx)
	err := send(archive, stream.Send, func(i int, part []byte) *pb.PushPackageRequest {
		if i == 0 {
			return &pb.PushPackageRequest{Name: name, Version: version, Cause: cause, Chunk: part}
		}
		return &pb.PushPackageRequest{Chunk: part}
	})
	if err != nil {
		cancel() // half a content must not look like a whole one
	}
	answer, closed := stream.CloseAndReceive()
	if err != nil {
		closed = err
	}
	return Decode[center.Package](answer, closed)
}

// PushTool sends a tool's folder, as shelf.Pack writes it. breaks allows that flows no longer compile.
func (c *Client) PushTool(ctx context.Context, archive io.Reader, breaks bool, cause *pb.Cause) (flow.Manifest, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := c.Flows.PushTool(ctx)
	err := send(archive, stream.Send, func(i int, part []byte) *pb.PushToolRequest {
		if i == 0 {
			return &pb.PushToolRequest{BreakFlows: breaks, Cause: cause, Chunk: part}
		}
		return &pb.PushToolRequest{Chunk: part}
	})
	if err != nil {
		cancel() // half a content must not look like a whole one
	}
	answer, closed := stream.CloseAndReceive()
	if err != nil {
		closed = err
	}
	return Decode[flow.Manifest](answer, closed)
}

// PushFile sends a content to the file source.
func (c *Client) PushFile(ctx context.Context, namespace, path string, mode uint32, content io.Reader, cause *pb.Cause) (center.File, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := c.Files.Push(ctx)
	err := send(content, stream.Send, func(i int, part []byte) *pb.PushFileRequest {
		if i == 0 {
			return &pb.PushFileRequest{Namespace: namespace, Path: path, Mode: mode, Cause: cause, Chunk: part}
		}
		return &pb.PushFileRequest{Chunk: part}
	})
	if err != nil {
		cancel() // half a content must not look like a whole one
	}
	answer, closed := stream.CloseAndReceive()
	if err != nil {
		closed = err
	}
	return Decode[center.File](answer, closed)
}

// send cuts a content into messages; there is always a first one. A server that refuses midway tells why in its
// answer, so an end of the stream is no error here.
func send[T any](content io.Reader, send func(*T) error, message func(i int, part []byte) *T) error {
	for i := 0; ; i++ {
		part := make([]byte, rpc.ChunkSize)
		n, err := io.ReadFull(content, part)
		if n > 0 || i == 0 {
			if err := send(message(i, part[:n])); err != nil {
				return nil
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return nil
		default:
			return fmt.Errorf("control: read what is pushed: %w", err)
		}
	}
}

// Blob opens a blob of the server. The caller checks the digest of what it reads, and closes it.
func (c *Client) Blob(ctx context.Context, digest string) (io.ReadCloser, error) {
	digits, err := center.ParseDigest(digest)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+center.BlobPath+digits, nil)
	if err != nil {
		return nil, fmt.Errorf("control: blob %s: %w", digest, err)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("control: blob %s: %w", digest, err)
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		text, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
		if err != nil {
			text = []byte(err.Error())
		}
		if answer.StatusCode == http.StatusNotFound {
			return nil, fmt.Errorf("%w: %s", center.ErrNotFound, text)
		}
		return nil, fmt.Errorf("control: blob %s: the server answered %d: %s", digest, answer.StatusCode, text)
	}
	return answer.Body, nil
}
