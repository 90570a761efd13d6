package trigger

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// SignatureHeader carries the signature of a call: t=SECONDS,v1=HEX.
const SignatureHeader = "Zhiyun-Signature"

// Sign returns the signature header of a call with a body at a time.
func Sign(secret string, at time.Time, body []byte) string {
	seconds := strconv.FormatInt(at.Unix(), 10)
	return "t=" + seconds + ",v1=" + hex.EncodeToString(mac(secret, seconds, body))
}

func mac(secret, seconds string, body []byte) []byte {
	h := hmac.New(sha256.New, []byte(secret))
	io.WriteString(h, seconds+".") // a hash never fails
	h.Write(body)
	return h.Sum(nil)
}

// verify checks a signature and the time in it, and returns that time as it was signed.
func verify(header, secret string, now time.Time, window time.Duration, body []byte) (seconds string, ok bool) {
	var sum string
	for part := range strings.SplitSeq(header, ",") {
		switch key, value, _ := strings.Cut(strings.TrimSpace(part), "="); key {
		case "t":
			seconds = value
		case "v1":
			sum = value
		}
	}
	given, err := hex.DecodeString(sum)
	at, err2 := strconv.ParseInt(seconds, 10, 64)
	good := hmac.Equal(mac(secret, seconds, body), given)
	return seconds, good && err == nil && err2 == nil && math.Abs(now.Sub(time.Unix(at, 0)).Seconds()) <= window.Seconds()
}

// nobody's secret takes the place of that of a trigger which is not there, so that answers do not tell which are.
const nobody = "nobody has this secret, and nobody can make it so"

// Handler serves POST /hooks/NAME. It answers 202 with {"execution": ID}, 200 with {"ignored": WHY}, 401 to whoever has not signed well, 413 to a
// body that is too large, 409 while the trigger is paused, 400 if the flow does not take what the body says, 503 with Retry-After when
// no more executions are taken or triggers are not read yet. Run has to run beside it. Serve it over TLS: signatures prove who calls, and hide nothing.
func (c *Controller) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /hooks/{name}", c.call)
	return mux
}

func (c *Controller) call(w http.ResponseWriter, r *http.Request) {
	c.mu.RLock()
	h, synced := c.known[r.PathValue("name")], c.synced
	c.mu.RUnlock()
	if !synced {
		w.Header().Set("Retry-After", "1")
		answer(w, http.StatusServiceUnavailable, "error", "the triggers are not read yet; try again")
		return
	}
	secret, window, bound := nobody, 5*time.Minute, int64(64<<10)
	if h != nil {
		secret, window, bound = h.Webhook.Secret, time.Duration(h.Webhook.Window), h.Webhook.MaxBody
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bound))
	var large *http.MaxBytesError
	signed, good := verify(r.Header.Get(SignatureHeader), secret, time.Now(), window, body)
	switch {
	case errors.As(err, &large):
		c.count("refused")
		answer(w, http.StatusRequestEntityTooLarge, "error", fmt.Sprintf("the body has more than %d bytes", bound))
		return
	case err != nil:
		answer(w, http.StatusBadRequest, "error", "the body cannot be read: "+err.Error())
		return
	case !good || h == nil:
		c.count("refused")
		answer(w, http.StatusUnauthorized, "error", "there is no such webhook, or the signature is wrong or too old")
		return
	case h.paused != nil:
		answer(w, http.StatusConflict, "error", "paused by "+h.paused.Actor+": "+h.paused.Reason)
		return
	}
	c.accept(w, r, h, signed, body)
}

// accept acts on a call whose signature is good.
func (c *Controller) accept(w http.ResponseWriter, r *http.Request, h *hook, signed string, body []byte) {
	id, why, err := c.begin(r, h, signed, body)
	var busy *flow.BusyError
	switch {
	case errors.As(err, &busy):
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(busy.After.Seconds()))))
		answer(w, http.StatusServiceUnavailable, "error", err.Error())
	case errors.Is(err, ErrInvalid), errors.Is(err, flow.ErrInvalid), errors.Is(err, flow.ErrNotFound), errors.Is(err, flow.ErrDenied):
		c.told(r.Context(), h.Name, Firing{At: time.Now().UTC(), Outcome: Failed, Reason: err.Error()})
		answer(w, http.StatusBadRequest, "error", err.Error())
	case err != nil:
		w.Header().Set("Retry-After", "1")
		answer(w, http.StatusServiceUnavailable, "error", err.Error())
	case why != "":
		c.told(r.Context(), h.Name, Firing{At: time.Now().UTC(), Outcome: Ignored, Reason: why})
		answer(w, http.StatusOK, "ignored", why)
	default:
		c.told(r.Context(), h.Name, Firing{At: time.Now().UTC(), Outcome: Started, Execution: id})
		answer(w, http.StatusAccepted, "execution", id)
	}
}

// begin starts the flow of a call, or says why it does not.
func (c *Controller) begin(r *http.Request, h *hook, signed string, raw []byte) (id, why string, err error) {
	body, err := decodeBody(raw)
	if err != nil {
		return "", "", err
	}
	vars := map[string]any{"body": body}
	if h.when != nil {
		yes, err := h.when.Eval(vars)
		if err != nil {
			return "", "", fmt.Errorf("%w: when: %w", ErrInvalid, err)
		}
		if yes != true {
			return "", "when is false: " + h.Webhook.When, nil
		}
	}
	sum := sha256.Sum256(append([]byte(signed+"."), raw...))
	key := hex.EncodeToString(sum[:])
	if h.key != nil {
		text, err := h.key.eval(vars)
		if err != nil {
			return "", "", fmt.Errorf("%w: key: %w", ErrInvalid, err)
		}
		if key = expr.Text(text); key == "" {
			return "", "", fmt.Errorf("%w: key is empty: %s", ErrInvalid, h.Webhook.Key)
		}
	}
	params, err := h.params(body)
	if err != nil {
		return "", "", fmt.Errorf("%w: params: %w", ErrInvalid, err)
	}
	id, err = begun(c.config.Engine.Start(r.Context(), h.Flow, params, append(h.by(), flow.Key("hook/"+h.Name+"/"+key), flow.Because("webhook "+h.Name))...))
	return id, "", err
}

// decodeBody reads a body: a JSON object, or nothing for an empty one.
func decodeBody(raw []byte) (any, error) {
	if len(raw) == 0 {
		return map[string]any{}, nil
	}
	body, err := expr.Decode(raw, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: the body is not JSON: %w", ErrInvalid, err)
	}
	if _, object := body.(map[string]any); !object {
		return nil, fmt.Errorf("%w: the body must be a JSON object", ErrInvalid)
	}
	return body, nil
}

func answer(w http.ResponseWriter, status int, key, value string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{key: value}) // the caller is gone: nobody is left to tell
}
