package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/user"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// dial connects to the server that the verb's flags name.
func dial(c *cli.Context) (*control.Client, error) {
	server, err := target(c)
	if err != nil {
		return nil, err
	}
	token, err := auth.ReadToken(c.String("token-file"))
	if err != nil {
		return nil, usage("--token-file: %v", err)
	}
	secure, err := tlsFiles(c).TLS()
	if err != nil {
		return nil, usage("%v", err)
	}
	client, err := control.DialConfig(transport.DialConfig{Target: server, Token: token, TLS: secure})
	if err != nil {
		return nil, usage("%v", err)
	}
	if rehearsing(c.Context) {
		return client.Rehearsing(), nil
	}
	return client, nil
}

// cause says that the person at the terminal asked for it.
func cause(c *cli.Context) *controlpb.Cause {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return &controlpb.Cause{Actor: "operator:" + name, Reason: c.String("reason")}
}

func reasonFlag() cli.Flag {
	return &cli.StringFlag{Name: "reason", Usage: "why; kept in the audit record"}
}

// call sends one request and unwraps the answer. Errors lose Connect's wrapping and keep its words, which say what to do.
func call[Q, A any](ctx context.Context, do func(context.Context, *connect.Request[Q]) (*connect.Response[A], error), request *Q) (*A, error) {
	response, err := do(ctx, connect.NewRequest(request))
	if err != nil {
		return nil, plainError(err)
	}
	return response.Msg, nil
}

// decode turns a JSON document of the API into a value.
func decode[T any](content []byte) (T, error) {
	var value T
	if err := json.Unmarshal(content, &value); err != nil {
		return value, fmt.Errorf("the server's answer: %w", err)
	}
	return value, nil
}

// pages calls fetch until there is no next page or max items were seen; 0 is no bound.
func pages(max int, fetch func(page *controlpb.Page) (*controlpb.Listing, error)) ([]json.RawMessage, error) {
	if max < 0 {
		return nil, usage("--limit %d: want 1 or more, or 0 for all", max)
	}
	const most = 1000
	var items []json.RawMessage
	page := &controlpb.Page{Limit: most}
	for {
		if max > 0 {
			page.Limit = int32(min(most, max-len(items)))
		}
		listing, err := fetch(page)
		if err != nil {
			return nil, err
		}
		for _, item := range listing.Items {
			items = append(items, item)
		}
		if listing.Next == "" || (max > 0 && len(items) >= max) {
			return items, nil
		}
		page = &controlpb.Page{Limit: most, After: listing.Next}
	}
}

func limitFlag() cli.Flag {
	return &cli.IntFlag{Name: "limit", Value: 200, Usage: "`MOST` items to print; 0 prints all"}
}
