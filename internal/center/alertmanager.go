package center

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Alertmanager speaks Alertmanager's v2 API: as a Sink it posts notices as alerts, as a Silencer it makes and
// expires silences that match the label "device".
type Alertmanager struct {
	base   string
	client *http.Client
}

// NewAlertmanager takes the URL under which /api/v2 is served. A nil client is one without credentials, which calls no link-local address.
func NewAlertmanager(base string, client *http.Client) (*Alertmanager, error) {
	if err := checkURL("alertmanager", base); err != nil {
		return nil, err
	}
	if client == nil {
		client = reach{}.client()
	}
	return &Alertmanager{strings.TrimSuffix(base, "/") + "/api/v2", client}, nil
}

// Name implements Sink.
func (*Alertmanager) Name() string { return "alertmanager" }

type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
}

// Deliver implements Sink.
func (a *Alertmanager) Deliver(ctx context.Context, notice Notice) error {
	labels := map[string]string{}
	for name, value := range notice.Labels {
		labels[labelName.ReplaceAllString(name, "_")] = value
	}
	labels["alertname"], labels["severity"], labels["source"] = "zhiyun_"+notice.Kind, string(notice.Severity), "zhiyun"
	if notice.Module != "" {
		labels["module"] = notice.Module
	}
	if notice.Device != "" {
		labels["device"] = notice.Device
	}
	_, err := call(ctx, a.client, http.MethodPost, a.base+"/alerts", []alert{{
		Labels: labels, Annotations: map[string]string{"summary": notice.Text, "id": notice.ID}, StartsAt: notice.At,
	}})
	return err
}

var labelName = regexp.MustCompile(`[^a-zA-Z0-9_]|^[0-9]`)

type matcher struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	IsRegex bool   `json:"isRegex"`
	IsEqual bool   `json:"isEqual"`
}

type remoteSilence struct {
	ID        string    `json:"id,omitempty"`
	Matchers  []matcher `json:"matchers"`
	StartsAt  time.Time `json:"startsAt"`
	EndsAt    time.Time `json:"endsAt"`
	CreatedBy string    `json:"createdBy"`
	Comment   string    `json:"comment"`
	Status    *struct {
		State string `json:"state"`
	} `json:"status,omitempty"`
}

const createdBy = "zhiyun"

// mark is how a silence is found again when the answer that named its id was lost.
func (s Silence) mark() string { return "[" + s.Key + "] " }

func (s Silence) matcher() matcher {
	quoted := make([]string, len(s.Devices))
	for i, device := range s.Devices {
		quoted[i] = regexp.QuoteMeta(device)
	}
	return matcher{Name: "device", Value: strings.Join(quoted, "|"), IsRegex: true, IsEqual: true}
}

// Silence implements Silencer.
func (a *Alertmanager) Silence(ctx context.Context, silence Silence) (string, error) {
	content, err := call(ctx, a.client, http.MethodGet, a.base+"/silences", nil)
	if err != nil {
		return "", err
	}
	var standing []remoteSilence
	if err := json.Unmarshal(content, &standing); err != nil {
		return "", fmt.Errorf("center: silences of alertmanager: %w", err)
	}
	i := slices.IndexFunc(standing, func(r remoteSilence) bool {
		return r.CreatedBy == createdBy && strings.HasPrefix(r.Comment, silence.mark()) && (r.Status == nil || r.Status.State != "expired")
	})
	if i >= 0 {
		return standing[i].ID, nil
	}
	content, err = call(ctx, a.client, http.MethodPost, a.base+"/silences", remoteSilence{
		Matchers: []matcher{silence.matcher()}, StartsAt: silence.At, EndsAt: silence.Until,
		CreatedBy: createdBy, Comment: silence.mark() + silence.Actor + ": " + silence.Reason,
	})
	if err != nil {
		return "", err
	}
	var made struct {
		SilenceID string `json:"silenceID"`
	}
	if err := json.Unmarshal(content, &made); err != nil || made.SilenceID == "" {
		return "", errors.Join(errors.New("center: alertmanager made a silence and named no id"), err)
	}
	return made.SilenceID, nil
}

// Lift implements Silencer.
func (a *Alertmanager) Lift(ctx context.Context, id string) error {
	_, err := call(ctx, a.client, http.MethodDelete, a.base+"/silence/"+url.PathEscape(id), nil)
	var answer *answerError
	if errors.As(err, &answer) && (answer.status == http.StatusNotFound || strings.Contains(answer.body, "already expired")) {
		return nil
	}
	return err
}
