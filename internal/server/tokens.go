package server

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/center"
)

// The tokens that the server keeps in its own folder: the operator's, for the verbs on this host, and that of its tools.
// Each is replaced when half of its life is over; the one before stays good for the other half.
var ownTokens = []struct {
	file string
	role auth.Role
	name string
}{
	{"token", auth.Operator, "admin"},
	{"tool.token", auth.Tool, "flow"},
}

// ownTokenLife is how long a token of the folder is good for.
const ownTokenLife = 30 * 24 * time.Hour

// issueOwn makes the tokens that are missing, too old, or not of this record.
func (h *house) issueOwn(ctx context.Context) error {
	for _, own := range ownTokens {
		path := filepath.Join(h.config.Dir, own.file)
		if h.goodToken(path) {
			continue
		}
		token, _, err := h.centers.Credentials.Issue(ctx, center.IssueIn{
			Role: own.role, Name: own.name, TTL: ownTokenLife, By: "zhiyun", Reason: "for the server's own folder",
		})
		if err != nil {
			return err
		}
		if err := auth.WriteSecret(path, []byte(token.String()+"\n")); err != nil {
			return err
		}
	}
	return nil
}

// goodToken says whether the file holds a token that lives for long enough.
func (h *house) goodToken(path string) bool {
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 || time.Since(info.ModTime()) > ownTokenLife/2 {
		return false
	}
	text, err := auth.ReadToken(path)
	if err != nil {
		return false
	}
	token, err := auth.ParseToken(text)
	if err != nil {
		return false
	}
	_, err = h.centers.Credentials.Token(token)
	return err == nil
}

// renewOwn keeps the folder's tokens fresh until ctx ends.
func (h *house) renewOwn(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := h.issueOwn(ctx); err != nil && ctx.Err() == nil {
			h.config.Logger.Warn("renew the tokens of the server's folder; trying again in an hour", "error", err)
		}
	}
}
