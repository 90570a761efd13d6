package demo

import (
	"bytes"
	"embed"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/dev"
	"github.com/zhiyun-ops/zhiyun/internal/sample"
)

//go:embed site
var site embed.FS

// The devices stand at three sites, most of them small.
var stands = []struct{ site, kind string }{
	{"sz-a", "c2"}, {"sz-a", "c2"}, {"sz-a", "c2"}, {"sz-a", "c2"}, {"sz-a", "c4"},
	{"sz-b", "c2"}, {"sz-b", "c2"}, {"sz-b", "c4"}, {"sz-b", "c2"},
	{"gz-a", "c2"}, {"gz-a", "c4"}, {"gz-a", "c2"},
}

const callerDevice = "web-01"

// configTemplate renders what an instance can carry from its device's type.
const configTemplate = `# rendered for {{ .device.name }}
rate: {{ if eq .device.type "c4" }}400{{ else }}200{{ end }}
workers: {{ if eq .device.type "c4" }}8{{ else }}4{{ end }}
greeting: {{ .param.greeting }}
`

func deviceName(i int) string { return fmt.Sprintf("api-%02d", i+1) }

func because(reason string) *pb.Cause { return &pb.Cause{Actor: "demo", Reason: reason} }

// raise starts the environment, and puts the module into the CMDB and the centers.
func (s *story) raise() error {
	config := dev.Config{Dir: s.config.Dir, Exe: s.config.Exe, ServerFlags: dev.FastServer(s.config.Decide), AgentFlags: dev.FastAgent()}
	// Each demo takes a network of its own, so that two can run at a time.
	if !s.config.OneAddress {
		claimed, err := dev.Claim(s.network)
		if err != nil {
			return err
		}
		s.claimed, s.network = claimed, claimed.Number
	}
	places, err := dev.Places(s.network, len(stands)+2, s.config.OneAddress)
	if err != nil {
		return err
	}
	var fleet strings.Builder
	stand := func(device dev.Device, name, site, kind string) {
		device.Name = name
		config.Devices = append(config.Devices, device)
		fmt.Fprintf(&fleet, "---\nkind: device\nname: %s\naddr: %s\nport_offset: %d\nsite: %s\ntype: %s\n", name, device.Addr, device.PortOffset, site, kind)
	}
	for i, at := range stands {
		stand(places[i], deviceName(i), at.site, at.kind)
	}
	stand(places[len(stands)], callerDevice, "sz-a", "c2")
	s.virtual = places[len(stands)+1].Addr
	environment, err := dev.Start(s.ctx, config)
	if err != nil {
		return err
	}
	s.environment = environment
	if s.api, err = control.Dial(environment.Target(), ""); err != nil {
		return err
	}
	own := "an address"
	if s.config.OneAddress {
		own = "ports"
	}
	s.say("", "server and %d agents run, each device with %s of its own; data in %s", len(config.Devices), own, s.config.Dir)
	return s.declare(fleet.String())
}

func (s *story) declare(fleet string) error {
	pack, err := sample.Pack(s.config.Exe)
	if err != nil {
		return err
	}
	defer pack.Close()
	pushed, err := s.api.PushPackage(s.ctx, "demo-api", "1.0.0", pack, because("the sample module"))
	if err != nil {
		return err
	}
	s.say("", "package demo-api 1.0.0 is in the store: %s…, %d MiB", pushed.Digest[:19], pushed.Size>>20)
	if _, err := s.api.PushFile(s.ctx, "demo", "motd.txt", 0o644, strings.NewReader("Zhiyun demo\n"), because("a file to mirror")); err != nil {
		return err
	}
	if _, err := s.api.Configs.SetTemplate(s.ctx, connect.NewRequest(&pb.TemplateRequest{Name: "demo-api.yaml", Body: configTemplate, Cause: because("the module's settings")})); err != nil {
		return err
	}
	texts := []*pb.SourceDocument{}
	for _, name := range []string{"fleet.yaml", "modules.yaml"} {
		file, err := site.Open("site/" + name)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(file)
		file.Close()
		if err != nil {
			return err
		}
		text = bytes.ReplaceAll(text, []byte("VIRTUAL"), []byte(s.virtual))
		texts = append(texts, &pb.SourceDocument{Name: name, Text: text})
	}
	texts[0].Text = append(append(texts[0].Text, '\n'), fleet...)
	applied, err := s.api.Resources.Apply(s.ctx, connect.NewRequest(&pb.ApplyRequest{Documents: texts, Cause: because("the demo's stage")}))
	if err != nil {
		return err
	}
	s.say("", "CMDB: %d devices at 3 sites, modules %s and %s, revision %d", len(stands)+1, module, callerModule, applied.Msg.Revision)
	if _, err := s.api.Configs.Set(s.ctx, connect.NewRequest(&pb.ParamRequest{Level: "module", Owner: module, Key: "greeting", Value: []byte(`"hello from demo.api"`), Cause: because("a parameter")})); err != nil {
		return err
	}
	if _, err := s.api.Permissions.Request(s.ctx, connect.NewRequest(&pb.PermissionRequest{Caller: callerModule, Service: service, Cause: &pb.Cause{Actor: "demo", Reason: "the callers call it", Key: "demo-grant"}})); err != nil {
		return err
	}
	// The device of the callers serves their module.
	held, err := s.api.Devices.Acquire(s.ctx, connect.NewRequest(&pb.AcquireRequest{Owner: "demo", Module: callerModule, Count: 1, Names: []string{callerDevice}, Cause: &pb.Cause{Actor: "demo", Reason: "the callers run on it", Key: "demo-web"}}))
	if err != nil {
		return err
	}
	if len(held.Msg.Items) != 1 {
		return fmt.Errorf("device %s could not be acquired", callerDevice)
	}
	if _, err := s.api.Devices.Serve(s.ctx, connect.NewRequest(&pb.DevicesRequest{Owner: "demo", Names: []string{callerDevice}, Module: callerModule, Cause: because("the callers run on it")})); err != nil {
		return err
	}
	return s.until("all agents are connected", func() (bool, error) {
		_, err := s.devices("")
		return err == nil, err
	})
}

// devices lists the module's pool, or those of it in one state.
func (s *story) devices(state cmdb.State) ([]cmdb.Device, error) {
	all, _, err := control.DecodeList[cmdb.Device](s.api.Resources.List(s.ctx, connect.NewRequest(&pb.ListResourcesRequest{Kind: string(cmdb.KindDevice)})))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(d cmdb.Device) bool {
		return d.Name == callerDevice || (state != "" && d.State != state)
	}), nil
}

// states counts the pool by state.
func (s *story) states() (map[cmdb.State]int, error) {
	all, err := s.devices("")
	counts := make(map[cmdb.State]int)
	for _, d := range all {
		counts[d.State]++
	}
	return counts, err
}

func names(devices []cmdb.Device) []string {
	out := make([]string, len(devices))
	for i, d := range devices {
		out[i] = d.Name
	}
	slices.Sort(out)
	return out
}

// pause lets the story rest.
func (s *story) pause(d time.Duration) error {
	select {
	case <-s.ctx.Done():
		return s.ctx.Err()
	case <-time.After(d):
		return nil
	}
}
