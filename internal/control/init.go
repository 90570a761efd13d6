package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/drift"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// InitFile is a file that carries a part of an init profile to a device: the mark that says which profile the device
// has, or a file that keeps a declared directory.
type InitFile struct {
	Path   string `json:"path"`
	Mode   string `json:"mode"`
	Digest string `json:"digest"`

	content []byte
}

// initMark is where a device says which init profile it has.
const initMark = "etc/zhiyun/init.json"

// initFiles are those of a module's init profile; none for a module without one. Directories that are mirrored from the
// file source are left to it.
func (a *API) initFiles(module cmdb.Module) ([]InitFile, error) {
	if module.InitProfile == "" {
		return []InitFile{}, nil
	}
	object, err := a.config.CMDB.Get(cmdb.KindInitProfile, module.InitProfile)
	if err != nil {
		return nil, err
	}
	profile, ok := object.(*cmdb.InitProfile)
	if !ok {
		return nil, fmt.Errorf("%w: %s is no init profile", cmdb.ErrKind, module.InitProfile)
	}
	mark, err := json.Marshal(struct {
		Profile string `json:"profile"`
		Module  string `json:"module"`
	}{profile.Name, module.Name})
	if err != nil {
		return nil, fmt.Errorf("control: mark of the init profile: %w", err)
	}
	out := []InitFile{{Path: initMark, Mode: "0644", content: append(mark, '\n')}}
	for _, dir := range profile.Dirs {
		local := strings.TrimPrefix(path.Clean("/"+dir.Path), "/")
		mirrored := false
		for _, file := range module.Files {
			mirrored = mirrored || local == file.Path || strings.HasPrefix(local, file.Path+"/")
		}
		if local != "" && !mirrored {
			out = append(out, InitFile{Path: path.Join(local, ".keep"), Mode: "0644", content: []byte{}})
		}
	}
	for i := range out {
		out[i].Digest = drift.Digest(out[i].content)
	}
	return out, nil
}

func (d devices) InitFiles(ctx context.Context, q *connect.Request[pb.InitFilesRequest]) (*connect.Response[pb.JSON], error) {
	module, err := d.config.CMDB.Module(q.Msg.Module)
	if err != nil {
		return nil, err
	}
	out, err := d.initFiles(module)
	if err != nil {
		return nil, err
	}
	for _, file := range out {
		if _, _, err := d.config.Centers.Blobs.Put(ctx, bytes.NewReader(file.content), file.Digest); err != nil {
			return nil, err
		}
	}
	return rpc.Document(out, nil)
}
