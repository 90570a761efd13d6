package tools

import (
	"cmp"
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// span reads a duration of an input.
func span(field, text string, fallback time.Duration) (time.Duration, error) {
	if text == "" {
		return fallback, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fail("input.invalid", "%s %q: give a duration above 0, as in 30s or 2h", field, text)
	}
	return d, nil
}

// forget is how long a mute or silence lasts whose flow was forgotten.
const forget = 4 * time.Hour

// NotifyMuteIn is what notify.mute takes.
type NotifyMuteIn struct {
	Module string `json:"module"`
	Kind   string `json:"kind,omitempty" doc:"of event; default load"`
	Expiry string `json:"expiry,omitempty" doc:"after which it ends by itself; default 4h"`
}

// NotifyMuteOut is what notify.mute tells.
type NotifyMuteOut struct {
	Key   string `json:"key" doc:"for notify.unmute"`
	Until string `json:"until"`
}

// NotifyMute mutes a module's load events until it is lifted or expires. Codes: module.unknown.
func NotifyMute(ctx context.Context, env Env, in NotifyMuteIn) (NotifyMuteOut, error) {
	expiry, err := span("expiry", in.Expiry, forget)
	if err != nil {
		return NotifyMuteOut{}, err
	}
	if _, err := module(ctx, env, in.Module); err != nil {
		return NotifyMuteOut{}, err
	}
	mute, err := control.Decode[center.Mute](env.Client.Notify.Mute(ctx, connect.NewRequest(&pb.MuteRequest{
		Kind: cmp.Or(in.Kind, "load"), Module: in.Module, Expiry: durationpb.New(expiry), Cause: env.cause(),
	})))
	return NotifyMuteOut{Key: mute.Key, Until: mute.Until.Format(time.RFC3339)}, err
}

// NotifyUnmuteIn is what notify.unmute takes: a key, or, to undo, the input of notify.mute.
type NotifyUnmuteIn struct {
	Key    string         `json:"key,omitempty" doc:"of the mute; default ZHIYUN_KEY"`
	Module string         `json:"module,omitempty"`
	Kind   string         `json:"kind,omitempty"`
	Expiry string         `json:"expiry,omitempty"`
	Done   *NotifyMuteOut `json:"done,omitempty"`
}

// Lifted is what the tools that lift something tell.
type Lifted struct {
	Key string `json:"key"`
}

// NotifyUnmute lifts a mute; nothing happens if there is none.
func NotifyUnmute(ctx context.Context, env Env, in NotifyUnmuteIn) (Lifted, error) {
	cause := env.cause()
	cause.Key = cmp.Or(in.Key, env.Key)
	_, err := env.Client.Notify.Unmute(ctx, connect.NewRequest(&pb.MuteRequest{Cause: cause}))
	return Lifted{Key: cause.Key}, err
}

// AlertSilenceIn is what alert.silence takes.
type AlertSilenceIn struct {
	Devices []string `json:"devices"`
	Expiry  string   `json:"expiry,omitempty" doc:"after which it ends by itself; default 4h"`
}

// AlertSilenceOut is what alert.silence tells.
type AlertSilenceOut struct {
	Key    string `json:"key" doc:"for alert.unsilence"`
	Until  string `json:"until"`
	Remote string `json:"remote" doc:"id in the alert system, if one is configured"`
}

// AlertSilence silences the alerts of devices until it is lifted or expires, here and in the alert system. Codes:
// device.unknown, input.invalid.
func AlertSilence(ctx context.Context, env Env, in AlertSilenceIn) (AlertSilenceOut, error) {
	expiry, err := span("expiry", in.Expiry, forget)
	if err != nil {
		return AlertSilenceOut{}, err
	}
	if err := known(ctx, env, in.Devices); err != nil {
		return AlertSilenceOut{}, err
	}
	silence, err := control.Decode[center.Silence](env.Client.Notify.Silence(ctx, connect.NewRequest(&pb.SilenceRequest{
		Devices: in.Devices, Expiry: durationpb.New(expiry), Cause: env.cause(),
	})))
	return AlertSilenceOut{Key: silence.Key, Until: silence.Until.Format(time.RFC3339), Remote: silence.Remote}, err
}

// AlertUnsilenceIn is what alert.unsilence takes: a key, or, to undo, the input of alert.silence.
type AlertUnsilenceIn struct {
	Key     string           `json:"key,omitempty" doc:"of the silence; default ZHIYUN_KEY"`
	Devices []string         `json:"devices,omitempty"`
	Expiry  string           `json:"expiry,omitempty"`
	Done    *AlertSilenceOut `json:"done,omitempty"`
}

// AlertUnsilence lifts a silence; nothing happens if there is none.
func AlertUnsilence(ctx context.Context, env Env, in AlertUnsilenceIn) (Lifted, error) {
	cause := env.cause()
	cause.Key = cmp.Or(in.Key, env.Key)
	_, err := env.Client.Notify.Unsilence(ctx, connect.NewRequest(&pb.SilenceRequest{Cause: cause}))
	return Lifted{Key: cause.Key}, err
}
