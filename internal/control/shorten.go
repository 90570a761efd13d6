package control

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// rollout returns the whole ID of a rollout.
func (r rollouts) rollout(ctx context.Context, given string) (string, error) {
	return rpc.Whole(ctx, "rollout", given, func() ([]rpc.Candidate, error) {
		controller, err := r.controller()
		if err != nil {
			return nil, err
		}
		if _, err := controller.Get(ctx, given); !errors.Is(err, gray.ErrNotFound) {
			return nil, nil // it is one, or the call says what is wrong
		}
		all, err := controller.List(ctx)
		out := make([]rpc.Candidate, len(all))
		for i, one := range all {
			out[i] = rpc.Candidate{ID: one.ID, Text: fmt.Sprintf("%s  %s", one.Service, one.Status.State)}
		}
		return out, err
	})
}

// mute returns the whole key of a mute that stands.
func (n notices) mute(ctx context.Context, given string) (string, error) {
	return rpc.Whole(ctx, "mute", given, func() ([]rpc.Candidate, error) {
		return everyPage(func(page center.Page) ([]center.Mute, string, error) {
			return n.config.Centers.Notify.Mutes(ctx, false, page)
		},
			func(m center.Mute) rpc.Candidate { return rpc.Candidate{ID: m.Key, Text: m.Kind + "  " + m.Module} })
	})
}

// silence returns the whole key of a silence that stands.
func (n notices) silence(ctx context.Context, given string) (string, error) {
	return rpc.Whole(ctx, "silence", given, func() ([]rpc.Candidate, error) {
		return everyPage(func(page center.Page) ([]center.Silence, string, error) {
			return n.config.Centers.Notify.Silences(ctx, false, page)
		},
			func(s center.Silence) rpc.Candidate {
				return rpc.Candidate{ID: s.Key, Text: strings.Join(s.Devices, ",")}
			})
	})
}

// notice returns the whole ID of a notice.
func (n notices) notice(ctx context.Context, given string) (string, error) {
	return rpc.Whole(ctx, "notice", given, func() ([]rpc.Candidate, error) {
		return everyPage(func(page center.Page) ([]center.Delivery, string, error) {
			return n.config.Centers.Notify.Deliveries(ctx, "", page)
		},
			func(d center.Delivery) rpc.Candidate { return rpc.Candidate{ID: d.Notice.ID, Text: d.Notice.Text} })
	})
}

// credential returns the whole ID of a credential.
func (t tokens) credential(ctx context.Context, given string) (string, error) {
	return rpc.Whole(ctx, "credential", given, func() ([]rpc.Candidate, error) {
		return everyPage(func(page center.Page) ([]center.Credential, string, error) {
			return t.config.Centers.Credentials.List(ctx, center.CredentialFilter{}, page)
		}, func(c center.Credential) rpc.Candidate {
			return rpc.Candidate{ID: c.ID, Text: fmt.Sprintf("%s:%s", c.Role, c.Name)}
		})
	})
}

// everyPage goes through a list.
func everyPage[T any](fetch func(center.Page) ([]T, string, error), what func(T) rpc.Candidate) ([]rpc.Candidate, error) {
	var out []rpc.Candidate
	for page := (center.Page{Limit: rpc.MaxPage}); ; {
		items, next, err := fetch(page)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			out = append(out, what(item))
		}
		if next == "" {
			return out, nil
		}
		page.After = next
	}
}
