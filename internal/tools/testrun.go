package tools

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
)

// TestRunIn is what test.run takes.
type TestRunIn struct {
	Module string `json:"module"`
	Device Device `json:"device" doc:"that is to be tested"`
	Peer   string `json:"peer,omitempty" doc:"a device in service to compare with; default any of the module's"`
}

// TestRunOut is what test.run tells.
type TestRunOut struct {
	Tests []Tested `json:"tests"`
}

// Tested is one test that passed.
type Tested struct {
	Name   string `json:"name"`
	Millis int64  `json:"ms"`
	Text   string `json:"text"`
}

// TestRun tests a new device before it gets calls: the tests of the module's manifest over the protocol, the connection to
// what the module calls, and that the device is as its declaration and a device in service are. Codes: module.unknown,
// device.unknown, test.tcp, test.http, test.l5, test.connectivity, test.consistency, test.no_report.
func TestRun(ctx context.Context, env Env, in TestRunIn) (TestRunOut, error) {
	out := TestRunOut{Tests: []Tested{}}
	m, err := module(ctx, env, in.Module)
	if err != nil {
		return out, err
	}
	if err := known(ctx, env, []string{in.Device.Name}); err != nil {
		return out, err
	}
	run := func(name string, test func(context.Context) (string, error)) error {
		start := time.Now()
		text, err := test(ctx)
		if err != nil {
			return err
		}
		out.Tests = append(out.Tests, Tested{name, time.Since(start).Milliseconds(), text})
		return nil
	}
	for _, spec := range m.Tests {
		if err := run(cmp.Or(spec.Name, spec.Kind), func(ctx context.Context) (string, error) { return declaredTest(ctx, m, in.Device, spec) }); err != nil {
			return out, err
		}
	}
	for _, service := range m.Callees() {
		if err := run("connectivity:"+service, func(ctx context.Context) (string, error) { return reachable(ctx, env, service) }); err != nil {
			return out, err
		}
	}
	return out, run("consistency", func(ctx context.Context) (string, error) { return consistent(ctx, env, in) })
}

// declaredTest runs one test of the manifest, again until it passes or its time is over: the process has just started.
func declaredTest(ctx context.Context, m cmdb.Module, device Device, spec cmdb.TestSpec) (string, error) {
	port, code := spec.Port, "test."+spec.Kind
	if spec.Kind == "l5" {
		service, ok := m.Service(spec.Service)
		if !ok {
			return "", fail(code, "module %s has no service %q to test; name one of its own", m.Name, spec.Service)
		}
		port = service.Port
	}
	addr, err := device.endpoint(port)
	if err != nil {
		return "", err
	}
	limit := time.Duration(spec.Timeout)
	if limit <= 0 {
		limit = 5 * time.Second
	}
	bound, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		var text string
		switch spec.Kind {
		case "tcp", "l5":
			text, err = dial(bound, addr)
		case "http":
			text, err = get(bound, "http://"+addr+cmp.Or(spec.Path, "/"), cmp.Or(spec.Status, http.StatusOK), spec.Body)
		default:
			return "", fail("test.unknown", "module %s has a test of kind %q; there are tcp, http and l5", m.Name, spec.Kind)
		}
		if err == nil {
			return text, nil
		}
		if rest(bound, 100*time.Millisecond) != nil {
			return "", later(code, "%s on %s (%s): %v", cmp.Or(spec.Name, spec.Kind), device.Name, addr, err)
		}
	}
}

func dial(ctx context.Context, addr string) (string, error) {
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	return addr + " accepts connections", conn.Close()
}

func get(ctx context.Context, url string, status int, body string) (string, error) {
	bound, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(bound, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	// A connection of its own: what is tested is that the device takes one.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	content, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return "", err
	}
	if answer.StatusCode != status {
		return "", fmt.Errorf("%s answered %d, want %d", url, answer.StatusCode, status)
	}
	if !strings.Contains(string(content), body) {
		return "", fmt.Errorf("%s answered without %q", url, body)
	}
	return fmt.Sprintf("%s answered %d", url, status), nil
}

// reachable dials instances of a service that the module calls until one answers.
func reachable(ctx context.Context, env Env, service string) (string, error) {
	instances, _, err := control.DecodeList[l5server.InstanceStatus](env.Client.Registry.Instances(ctx, connect.NewRequest(&pb.ServiceRequest{Service: service})))
	if err != nil {
		return "", err
	}
	var faults []error
	for _, i := range instances[:min(len(instances), 10)] {
		text, err := dial(ctx, i.Addr)
		if err == nil {
			return text, nil
		}
		faults = append(faults, err)
	}
	if len(instances) == 0 {
		return "", later("test.connectivity", "service %s, which the module calls, has no instance", service)
	}
	return "", later("test.connectivity", "no instance of %s, which the module calls, answers: %v", service, errors.Join(faults...))
}

// consistent compares the device with its declaration and with a device in service.
func consistent(ctx context.Context, env Env, in TestRunIn) (string, error) {
	peer, err := in.Peer, error(nil)
	if peer == "" {
		if peer, err = soundPeer(ctx, env, in); err != nil {
			return "", err
		}
	}
	findings, _, err := control.DecodeList[drift.Finding](env.Client.Drift.Peers(ctx, connect.NewRequest(&pb.PeersRequest{Device: in.Device.Name, Peer: peer})))
	switch {
	case isCode(err, "absent"):
		return "not compared: this server keeps no findings", nil
	case err != nil:
		return "", err
	case len(findings) > 0:
		return "", fail("test.consistency", "%s differs from %s in %d places, first: %s", in.Device.Name, cmp.Or(peer, "its declaration"), len(findings), findings[0])
	}
	return "as " + cmp.Or(peer, "declared; there is no other device in service"), nil
}

// soundPeer finds a device of the module in service that is itself as declared; none is "".
func soundPeer(ctx context.Context, env Env, in TestRunIn) (string, error) {
	serving, err := devicesWhere(ctx, env, fmt.Sprintf("state == %q && module == %q", cmdb.InService, in.Module))
	if err != nil {
		return "", err
	}
	for _, d := range serving {
		if d.Name == in.Device.Name {
			continue
		}
		open, err := env.Client.Drift.List(ctx, connect.NewRequest(&pb.ListFindingsRequest{Device: d.Name, Page: &pb.Page{Limit: 1}}))
		if isCode(err, "absent") {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		if len(open.Msg.Items) == 0 {
			return d.Name, nil
		}
	}
	return "", nil
}
