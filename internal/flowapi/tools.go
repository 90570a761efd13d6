package flowapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

func (f *API) Tools(context.Context, *connect.Request[pb.ToolsRequest]) (*connect.Response[pb.Listing], error) {
	if f.config.Tools == nil {
		return nil, fmt.Errorf("%w: tools", rpc.ErrAbsent)
	}
	var devices map[string]int
	if f.config.ToolDevices != nil {
		devices = f.config.ToolDevices()
	}
	pushed := map[string]bool{}
	if f.config.Shelf != nil {
		versions, err := f.config.Shelf.List("")
		if err != nil {
			return nil, err
		}
		for _, one := range versions {
			pushed[one.Manifest.Name] = true
		}
	}
	all := f.config.Tools.Manifests()
	out := make([]KnownTool, len(all))
	for i, m := range all {
		out[i] = KnownTool{m, ToolStanding{pushed[m.Name], devices[m.Name]}}
	}
	return rpc.Listing(out, "", nil)
}

// KnownTool is what FlowService.Tools tells of a tool: the document of its manifest, with two fields more.
type KnownTool struct {
	Manifest flow.Manifest
	Standing ToolStanding
}

// ToolStanding is what is known of a tool beside its manifest.
type ToolStanding struct {
	Pushed  bool `json:"pushed"`
	Devices int  `json:"devices"` // connected ones that have it
}

// MarshalJSON implements json.Marshaler.
func (k KnownTool) MarshalJSON() ([]byte, error) {
	manifest, err := json.Marshal(k.Manifest)
	if err != nil {
		return nil, err
	}
	standing, err := json.Marshal(k.Standing)
	if err != nil {
		return nil, err
	}
	return slices.Concat(manifest[:len(manifest)-1], []byte(","), standing[1:]), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (k *KnownTool) UnmarshalJSON(data []byte) error {
	return errors.Join(json.Unmarshal(data, &k.Manifest), json.Unmarshal(data, &k.Standing))
}
