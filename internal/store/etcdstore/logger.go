package etcdstore

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// bridge hands etcd's log lines to slog. etcd speaks of every election and every slow read at info, so that
// only warnings and worse pass at their own level; the rest passes as debug.
type bridge struct {
	to     slog.Handler
	fields []zapcore.Field
}

// zapLogger returns a zap logger over log; nil is silence. fatal runs after a line of level panic or fatal, in
// place of zap's own panic and os.Exit.
func zapLogger(log *slog.Logger, fatal zapcore.CheckWriteHook) *zap.Logger {
	handler := slog.Handler(slog.DiscardHandler)
	if log != nil {
		handler = log.Handler()
	}
	var options []zap.Option
	if fatal != nil {
		options = append(options, zap.WithFatalHook(fatal), zap.WithPanicHook(fatal))
	}
	return zap.New(&bridge{to: handler}, options...)
}

func level(l zapcore.Level) slog.Level {
	switch {
	case l < zapcore.WarnLevel:
		return slog.LevelDebug
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

// Enabled implements zapcore.Core. Fatal lines always pass: the hook reads them.
func (b *bridge) Enabled(l zapcore.Level) bool {
	return l >= zapcore.DPanicLevel || b.to.Enabled(context.Background(), level(l))
}

// With implements zapcore.Core.
func (b *bridge) With(fields []zapcore.Field) zapcore.Core {
	return &bridge{to: b.to, fields: append(b.fields[:len(b.fields):len(b.fields)], fields...)}
}

// Check implements zapcore.Core.
func (b *bridge) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.Enabled(entry.Level) {
		return checked.AddCore(entry, b)
	}
	return checked
}

// beside are warnings that do not apply to a member without listeners and users.
var beside = []string{"Running http and grpc server on single port", "simple token is not cryptographically signed"}

// Write implements zapcore.Core.
func (b *bridge) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	ctx := context.Background()
	if !b.to.Enabled(ctx, level(entry.Level)) {
		return nil
	}
	if slices.ContainsFunc(beside, func(start string) bool { return strings.HasPrefix(entry.Message, start) }) {
		return nil
	}
	encoder := zapcore.NewMapObjectEncoder()
	for _, f := range b.fields {
		f.AddTo(encoder)
	}
	for _, f := range fields {
		f.AddTo(encoder)
	}
	at := entry.Time
	if at.IsZero() {
		at = time.Now()
	}
	record := slog.NewRecord(at, level(entry.Level), "etcd: "+entry.Message, 0)
	for key, value := range encoder.Fields {
		record.AddAttrs(slog.Any(key, value))
	}
	return b.to.Handle(ctx, record)
}

// Sync implements zapcore.Core.
func (b *bridge) Sync() error { return nil }
