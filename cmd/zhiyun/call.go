package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5http"
)

func callCommand() *cli.Command {
	return verb("call", "SERVICE [PATH]", "route HTTP calls to a service, and report how they went",
		"zhiyun l5 call shop.cart /healthz --caller shop.web --for 30s", []cli.Flag{
			&cli.StringFlag{Name: "caller", Required: true, Usage: "the calling `MODULE`"},
			&cli.IntFlag{Name: "count", Value: 1, Usage: "`NUMBER` of calls, each printed"},
			&cli.DurationFlag{Name: "for", Usage: "call for this `TIME` instead, from the first answer on: waits for an instance, prints a summary"},
			&cli.DurationFlag{Name: "every", Value: 5 * time.Millisecond, Usage: "with --for: `TIME` from call to call"},
		}, func(c *cli.Context) error {
			service, err := arg(c, 0, "service id")
			if err != nil {
				return err
			}
			path := c.Args().Get(1)
			if !strings.HasPrefix(path, "/") {
				path = "/" + path
			}
			server, err := target(c)
			if err != nil {
				return err
			}
			token, err := auth.ReadToken(c.String("token-file"))
			if err != nil {
				return usage("--token-file: %v", err)
			}
			secure, err := tlsFiles(c).TLS()
			if err != nil {
				return usage("%v", err)
			}
			client, err := l5.New(l5.Config{Target: server, Caller: c.String("caller"), Token: token, TLS: secure, ReportEvery: 100 * time.Millisecond})
			if err != nil {
				return usage("%v", err)
			}
			ctx, cancel := context.WithCancel(c.Context)
			ended := make(chan error, 1)
			go func() { ended <- client.Run(ctx) }()
			defer func() { cancel(); <-ended }()
			calls := newCalls(client, "http://"+service+path)
			if c.IsSet("for") {
				return calls.last(c)
			}
			return calls.count(c)
		})
}

// calls makes HTTP calls one after the other, as a program would that uses l5http.
type calls struct {
	web  *http.Client
	url  string
	addr string // of the call that was made last
	base http.RoundTripper
}

func newCalls(client *l5.Client, url string) *calls {
	k := &calls{url: url, base: &http.Transport{}}
	k.web = &http.Client{Transport: l5http.NewTransport(client, l5http.WithBase(k)), Timeout: 10 * time.Second}
	return k
}

// RoundTrip notes where the call goes.
func (k *calls) RoundTrip(request *http.Request) (*http.Response, error) {
	k.addr = request.URL.Host
	return k.base.RoundTrip(request)
}

// answer is how one call went.
type answer struct {
	addr   string // empty: there was no route
	status string
	body   string
	took   time.Duration
	err    error
}

func (k *calls) one(ctx context.Context) answer {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, nil)
	if err != nil {
		return answer{err: err}
	}
	k.addr = ""
	began := time.Now()
	response, err := k.web.Do(request)
	a := answer{addr: k.addr, took: time.Since(began), err: err}
	if err != nil {
		return a
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	a.status, a.body, a.err, a.took = response.Status, strings.TrimSpace(string(body)), err, time.Since(began)
	if err == nil && response.StatusCode >= http.StatusInternalServerError {
		a.err = errors.New(response.Status)
	}
	return a
}

// count makes so many calls and prints each.
func (k *calls) count(c *cli.Context) error {
	failed := 0
	for range c.Int("count") {
		a := k.one(c.Context)
		if a.err != nil {
			failed++
		}
		if a.status == "" {
			fmt.Fprintln(c.App.ErrWriter, a.err)
			continue
		}
		fmt.Fprintf(c.App.Writer, "%s  %s  %s  %s\n", a.addr, a.status, a.took.Round(10*time.Microsecond), a.body)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d calls failed", failed, c.Int("count"))
	}
	return nil
}

// callee is what a summary says of one address.
type callee struct {
	Addr   string        `json:"addr"`
	Calls  int           `json:"calls"`
	Failed int           `json:"failed"`
	Median time.Duration `json:"median_ns"`
	Max    time.Duration `json:"max_ns"`
	took   []time.Duration
}

// last calls at a steady pace and prints a summary by address. As long as nothing serves, and nobody has asked for the
// grant yet, it waits.
func (k *calls) last(c *cli.Context) error {
	ticker := time.NewTicker(max(c.Duration("every"), 100*time.Microsecond))
	defer ticker.Stop()
	seen := make(map[string]*callee)
	var end time.Time // once there was an answer
	var because string
	for c.Context.Err() == nil && (end.IsZero() || time.Now().Before(end)) {
		a := k.one(c.Context)
		switch {
		case end.IsZero() && (errors.Is(a.err, l5.ErrNoInstance) || errors.Is(a.err, l5.ErrDenied)):
			why := "for an instance that takes calls"
			if errors.Is(a.err, l5.ErrDenied) {
				why = fmt.Sprintf("for a grant: zhiyun permission request %s %s", c.String("caller"), c.Args().First())
			}
			if why != because {
				because = why
				fmt.Fprintln(c.App.ErrWriter, "waiting", why)
			}
			select {
			case <-c.Context.Done():
			case <-time.After(200 * time.Millisecond):
			}
			continue
		case end.IsZero():
			end = time.Now().Add(c.Duration("for"))
		}
		if c.Context.Err() != nil {
			break
		}
		to := seen[a.addr]
		if to == nil {
			to = &callee{Addr: a.addr}
			seen[a.addr] = to
		}
		to.Calls++
		if a.err != nil {
			to.Failed++
		}
		to.took = append(to.took, a.took)
		select {
		case <-c.Context.Done():
		case <-ticker.C:
		}
	}
	return summarize(c, seen)
}

func summarize(c *cli.Context, seen map[string]*callee) error {
	t := table{columns: []string{"ADDR", "CALLS", "FAILED", "MEDIAN", "MAX"}}
	list := make([]*callee, 0, len(seen))
	all, failed := 0, 0
	for _, to := range seen {
		slices.Sort(to.took)
		to.Median, to.Max = to.took[len(to.took)/2], to.took[len(to.took)-1]
		all, failed = all+to.Calls, failed+to.Failed
		list = append(list, to)
	}
	slices.SortFunc(list, func(a, b *callee) int { return strings.Compare(a.Addr, b.Addr) })
	for _, to := range list {
		t.add(to.Addr, to.Calls, to.Failed, to.Median.Round(time.Microsecond).String(), to.Max.Round(time.Microsecond).String())
	}
	t.data = list
	if err := print(c, t); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d calls failed", failed, all)
	}
	return nil
}
