package control

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/center"
)

const (
	minShort = 4  // how much of an ID has to be given
	mostSaid = 10 // of those that a beginning is short for
	fullID   = 36 // bytes of an execution's ID
)

// candidate is something by its ID, with what tells it from others.
type candidate struct{ id, text string }

// whole returns the ID that given is the beginning of. It is given itself if that is an ID, or if no ID begins so: the call then says what it says of
// one that is not there. Several are an error that lists them. Only people shorten IDs: what tools and agents name they know whole, and the key of one
// of their acts may begin as another's does.
func whole(ctx context.Context, what, given string, beginning func() ([]candidate, error)) (string, error) {
	if id, proved := auth.From(ctx); len(given) < minShort || proved && id.Role != auth.Operator && id.Role != auth.Viewer {
		return given, nil
	}
	all, err := beginning()
	if err != nil {
		return "", err
	}
	var fits []candidate
	for _, one := range all {
		if one.id == given {
			return given, nil
		}
		if strings.HasPrefix(one.id, given) {
			fits = append(fits, one)
		}
	}
	switch len(fits) {
	case 0:
		return given, nil
	case 1:
		return fits[0].id, nil
	}
	var lines strings.Builder
	for i, one := range fits {
		if i == mostSaid {
			lines.WriteString("\n  ... and more")
			break
		}
		lines.WriteString("\n  " + one.id + "  " + one.text)
	}
	return "", invalid(what, given, "it is the beginning of several; give more of the one that is meant:"+lines.String())
}

// execution returns the whole ID of an execution.
func (f flows) execution(ctx context.Context, given string) (string, error) {
	if len(given) >= fullID {
		return given, nil
	}
	return whole(ctx, "execution", given, func() ([]candidate, error) {
		engine, err := f.engine()
		if err != nil {
			return nil, err
		}
		// IDs stand in their order, those that begin so right behind what they begin with.
		page, _, err := engine.List(ctx, flow.Filter{Oldest: true, After: given, Limit: mostSaid + 1})
		out := make([]candidate, len(page))
		for i, x := range page {
			out[i] = candidate{x.ID, fmt.Sprintf("%s  %s  started %s", x.Flow, x.State, x.Started.UTC().Format("2006-01-02 15:04:05"))}
		}
		return out, err
	})
}

// rollout returns the whole ID of a rollout.
func (r rollouts) rollout(ctx context.Context, given string) (string, error) {
	return whole(ctx, "rollout", given, func() ([]candidate, error) {
		controller, err := r.controller()
		if err != nil {
			return nil, err
		}
		if _, err := controller.Get(ctx, given); !errors.Is(err, gray.ErrNotFound) {
			return nil, nil // it is one, or the call says what is wrong
		}
		all, err := controller.List(ctx)
		out := make([]candidate, len(all))
		for i, one := range all {
			out[i] = candidate{one.ID, fmt.Sprintf("%s  %s", one.Service, one.Status.State)}
		}
		return out, err
	})
}

// mute returns the whole key of a mute that stands.
func (n notices) mute(ctx context.Context, given string) (string, error) {
	return whole(ctx, "mute", given, func() ([]candidate, error) {
		return everyPage(func(page center.Page) ([]center.Mute, string, error) {
			return n.config.Centers.Notify.Mutes(ctx, false, page)
		},
			func(m center.Mute) candidate { return candidate{m.Key, m.Kind + "  " + m.Module} })
	})
}

// silence returns the whole key of a silence that stands.
func (n notices) silence(ctx context.Context, given string) (string, error) {
	return whole(ctx, "silence", given, func() ([]candidate, error) {
		return everyPage(func(page center.Page) ([]center.Silence, string, error) {
			return n.config.Centers.Notify.Silences(ctx, false, page)
		},
			func(s center.Silence) candidate { return candidate{s.Key, strings.Join(s.Devices, ",")} })
	})
}

// notice returns the whole ID of a notice.
func (n notices) notice(ctx context.Context, given string) (string, error) {
	return whole(ctx, "notice", given, func() ([]candidate, error) {
		return everyPage(func(page center.Page) ([]center.Delivery, string, error) {
			return n.config.Centers.Notify.Deliveries(ctx, "", page)
		},
			func(d center.Delivery) candidate { return candidate{d.Notice.ID, d.Notice.Text} })
	})
}

// credential returns the whole ID of a credential.
func (t tokens) credential(ctx context.Context, given string) (string, error) {
	return whole(ctx, "credential", given, func() ([]candidate, error) {
		return everyPage(func(page center.Page) ([]center.Credential, string, error) {
			return t.config.Centers.Credentials.List(ctx, center.CredentialFilter{}, page)
		}, func(c center.Credential) candidate { return candidate{c.ID, fmt.Sprintf("%s:%s", c.Role, c.Name)} })
	})
}

// everyPage goes through a list.
func everyPage[T any](fetch func(center.Page) ([]T, string, error), what func(T) candidate) ([]candidate, error) {
	var out []candidate
	for page := (center.Page{Limit: maxPage}); ; {
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
