package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/tools"
)

// brought is the record of a flow that a server has saved because it brings it.
type brought struct {
	Version int    `json:"version"`
	Digest  string `json:"digest"` // of the document
}

// prepare saves the flows that the server brings: new ones, and those that it brings in another form than the last
// server did. A version that somebody else saved since stays the newest.
func (h *house) prepare(ctx context.Context) error {
	records := h.record.store("server")
	flows := tools.Flows()
	for _, name := range slices.Sorted(maps.Keys(flows)) {
		if err := h.bring(ctx, records, name, flows[name]); err != nil {
			return fmt.Errorf("server: save the flow %s: %w", name, err)
		}
	}
	return nil
}

func (h *house) bring(ctx context.Context, records store.Store, name string, source []byte) error {
	sum := sha256.Sum256(source)
	digest := hex.EncodeToString(sum[:])
	key := "flow/" + name
	found, _, err := records.List(ctx, key)
	if err != nil {
		return err
	}
	var last brought
	for _, record := range found {
		if record.Key == key {
			if err := json.Unmarshal(record.Value, &last); err != nil {
				return err
			}
		}
	}
	newest, err := h.flow.Definition(ctx, name, 0)
	switch {
	case errors.Is(err, flow.ErrNotFound):
	case err != nil:
		return err
	case last.Digest == digest:
		return nil
	case newest.Version != last.Version:
		h.config.Logger.Warn("a flow that this server brings was changed by somebody; theirs stays the newest", "flow", name, "version", newest.Version)
		return nil
	}
	saved, err := h.flow.Save(ctx, source)
	if err != nil {
		return err
	}
	value, err := json.Marshal(brought{saved.Version, digest})
	if err != nil {
		return err
	}
	_, err = records.Commit(ctx, store.Put(key, value))
	return err
}
