package control

import (
	"bytes"
	"context"
	"encoding/json"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// configs serves ConfigService.
type configs struct{ *API }

func (s configs) SetTemplate(ctx context.Context, q *connect.Request[pb.TemplateRequest]) (*connect.Response[pb.JSON], error) {
	c, err := s.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	set, err := s.config.Centers.Configs.SetTemplate(ctx, q.Msg.Name, q.Msg.Body, c.Actor)
	if err != nil {
		return nil, err
	}
	return rpc.Document(set, s.audit(ctx, c, "template.set", "template/"+q.Msg.Name, set.Version))
}

func (s configs) GetTemplate(ctx context.Context, q *connect.Request[pb.TemplateRequest]) (*connect.Response[pb.JSON], error) {
	return rpc.Document(s.config.Centers.Configs.Template(ctx, q.Msg.Name))
}

func (s configs) Templates(ctx context.Context, q *connect.Request[pb.ParamsRequest]) (*connect.Response[pb.Listing], error) {
	return rpc.Listing(s.config.Centers.Configs.Templates(ctx, page(q.Msg.Page)))
}

func paramObject(q *pb.ParamRequest) string { return "param/" + q.Level + "/" + q.Owner + "/" + q.Key }

func (s configs) Set(ctx context.Context, q *connect.Request[pb.ParamRequest]) (*connect.Response[pb.JSON], error) {
	c, err := s.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	set, err := s.config.Centers.Configs.Set(ctx, center.Param{
		Level: center.Level(q.Msg.Level), Owner: q.Msg.Owner, Key: q.Msg.Key, Value: json.RawMessage(q.Msg.Value), Secret: q.Msg.Secret,
	}, c.Actor)
	if err != nil {
		return nil, err
	}
	return rpc.Document(set, s.audit(ctx, c, "config.set", paramObject(q.Msg), set.Value)) // masked if secret
}

func (s configs) Unset(ctx context.Context, q *connect.Request[pb.ParamRequest]) (*connect.Response[pb.Done], error) {
	c, err := s.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if err := s.config.Centers.Configs.Unset(ctx, center.Level(q.Msg.Level), q.Msg.Owner, q.Msg.Key); err != nil {
		return nil, err
	}
	return rpc.Done(s.audit(ctx, c, "config.unset", paramObject(q.Msg), nil))
}

func (s configs) Get(ctx context.Context, q *connect.Request[pb.ParamRequest]) (*connect.Response[pb.JSON], error) {
	return rpc.Document(s.config.Centers.Configs.Get(ctx, center.Level(q.Msg.Level), q.Msg.Owner, q.Msg.Key))
}

func (s configs) Params(ctx context.Context, q *connect.Request[pb.ParamsRequest]) (*connect.Response[pb.Listing], error) {
	return rpc.Listing(s.config.Centers.Configs.Params(ctx, center.Level(q.Msg.Level), q.Msg.Owner, page(q.Msg.Page)))
}

// subject finds the module and the device, if one is named, that a file is rendered for.
func (s configs) subject(q *pb.RenderRequest) (device cmdb.Device, module cmdb.Module, err error) {
	name := q.Module
	if q.Device != "" {
		if device, err = s.config.CMDB.Device(q.Device); err != nil {
			return device, module, err
		}
		if name == "" {
			name = device.Module
		}
	}
	if err := rpc.Need("module", name, "name a module, or a device that has one"); err != nil {
		return device, module, err
	}
	module, err = s.config.CMDB.Module(name)
	return device, module, err
}

func (s configs) Render(ctx context.Context, q *connect.Request[pb.RenderRequest]) (*connect.Response[pb.JSON], error) {
	device, module, err := s.subject(q.Msg)
	if err != nil {
		return nil, err
	}
	scope, err := s.scope(device, module)
	if err != nil {
		return nil, err
	}
	return rpc.Document(s.config.Centers.Configs.Render(ctx, q.Msg.Template, scope, false))
}

// ConfigFiles is what a device needs to write its configuration.
type ConfigFiles struct {
	Device string       `json:"device"`
	Module string       `json:"module"`
	Files  []ConfigFile `json:"files"`
	// Params are those in force, secrets masked.
	Params []center.Provenance `json:"params"`
}

// ConfigFile is one file, kept as a blob under its digest.
type ConfigFile struct {
	Template string `json:"template"`
	Version  int    `json:"version"`
	Path     string `json:"path"`
	Mode     string `json:"mode,omitempty"`
	Digest   string `json:"digest"`
	Size     int    `json:"size"`
	// Content is the file itself, unless it holds a secret: then the blob alone has it.
	Content string `json:"content,omitempty"`
	Secret  bool   `json:"secret,omitempty"`
}

func (s configs) Files(ctx context.Context, q *connect.Request[pb.RenderRequest]) (*connect.Response[pb.JSON], error) {
	device, module, err := s.subject(q.Msg)
	if err != nil {
		return nil, err
	}
	rendered, err := s.renderAll(ctx, device, module)
	if err != nil {
		return nil, err
	}
	scope, err := s.scope(device, module)
	if err != nil {
		return nil, err
	}
	out := ConfigFiles{Device: device.Name, Module: module.Name, Files: make([]ConfigFile, len(rendered))}
	if out.Params, err = s.config.Centers.Configs.Resolve(ctx, scope); err != nil {
		return nil, err
	}
	for i, file := range rendered {
		if _, _, err := s.config.Centers.Blobs.Put(ctx, bytes.NewReader(file.Body), file.Digest); err != nil {
			return nil, err
		}
		spec := module.Configs[i]
		out.Files[i] = ConfigFile{Template: spec.Template, Version: file.Version, Path: spec.Path, Mode: spec.Mode,
			Digest: file.Digest, Size: len(file.Body), Secret: file.Secret}
		if !file.Secret {
			out.Files[i].Content = string(file.Body)
		}
	}
	return rpc.Document(out, nil)
}
