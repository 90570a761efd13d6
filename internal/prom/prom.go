// Package prom asks a Prometheus server, or anything that speaks its HTTP API, for the few things that adapters
// need: the value of a query at a moment and over a range.
package prom

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Client asks one server. It is safe for concurrent use.
type Client struct {
	base *url.URL
	http *http.Client
}

// New checks the server's URL, such as http://prometheus:9090. A nil client means http.DefaultClient; deadlines
// come from each call's context.
func New(server string, client *http.Client) (*Client, error) {
	base, err := url.Parse(server)
	if err == nil && (base.Scheme != "http" && base.Scheme != "https" || base.Host == "") {
		err = errors.New("it needs http:// or https:// and a host")
	}
	if err != nil {
		return nil, fmt.Errorf("prom: URL %q: %w", server, err)
	}
	if client == nil {
		client = http.DefaultClient
	}
	return &Client{base: base, http: client}, nil
}

// Series is one time series of an answer; an instant query has one point each.
type Series struct {
	Labels map[string]string
	Points []Point
}

// Point is a value at a moment; never NaN, those are left out.
type Point struct {
	At    time.Time
	Value float64
}

// At evaluates a query at one moment.
func (c *Client) At(ctx context.Context, query string, at time.Time) ([]Series, error) {
	return c.ask(ctx, "/api/v1/query", url.Values{"query": {query}, "time": {stamp(at)}})
}

// Range evaluates a query at from, from+step, ... up to to. Moments without a value are left out.
func (c *Client) Range(ctx context.Context, query string, from, to time.Time, step time.Duration) ([]Series, error) {
	return c.ask(ctx, "/api/v1/query_range", url.Values{"query": {query}, "start": {stamp(from)}, "end": {stamp(to)},
		"step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)}})
}

func stamp(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

// answer is the envelope of the HTTP API.
type answer struct {
	Status    string `json:"status"`
	ErrorType string `json:"errorType"`
	Error     string `json:"error"`
	Data      struct {
		Result []struct {
			Metric map[string]string `json:"metric"`
			Value  *sample           `json:"value"`
			Values []sample          `json:"values"`
		} `json:"result"`
	} `json:"data"`
}

// sample is [seconds, "value"].
type sample struct{ Point }

func (s *sample) UnmarshalJSON(text []byte) error {
	var pair [2]json.RawMessage
	var seconds float64
	var value string
	err := json.Unmarshal(text, &pair)
	if err == nil {
		err = errors.Join(json.Unmarshal(pair[0], &seconds), json.Unmarshal(pair[1], &value))
	}
	if err != nil {
		return fmt.Errorf("sample %s: %w", text, err)
	}
	if s.Value, err = strconv.ParseFloat(value, 64); err != nil {
		return fmt.Errorf("sample %s: %w", text, err)
	}
	s.At = time.UnixMilli(int64(math.Round(seconds * 1000))).UTC()
	return nil
}

// limit bounds an answer.
const limit = 64 << 20

func (c *Client) ask(ctx context.Context, path string, form url.Values) ([]Series, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.JoinPath(path).String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("prom: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("prom: query %q: %w", form.Get("query"), err)
	}
	defer response.Body.Close()
	var a answer
	if err := json.NewDecoder(io.LimitReader(response.Body, limit)).Decode(&a); err != nil {
		return nil, fmt.Errorf("prom: query %q: %s: %w; is this the URL of a Prometheus server?", form.Get("query"), response.Status, err)
	}
	if a.Status != "success" {
		return nil, fmt.Errorf("prom: query %q: %s: %s", form.Get("query"), a.ErrorType, a.Error)
	}
	out := make([]Series, 0, len(a.Data.Result))
	for _, r := range a.Data.Result {
		s := Series{Labels: r.Metric}
		if r.Value != nil {
			r.Values = append(r.Values, *r.Value)
		}
		for _, v := range r.Values {
			if !math.IsNaN(v.Value) && !math.IsInf(v.Value, 0) {
				s.Points = append(s.Points, v.Point)
			}
		}
		out = append(out, s)
	}
	return out, nil
}
