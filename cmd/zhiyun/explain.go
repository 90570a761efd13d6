package main

import (
	"encoding/json"
	"fmt"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
)

// explainCommand says why: as the server sees it, or a device's agent and the processes that call the service.
func explainCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "caller", Usage: "explain for this calling `MODULE`"},
		&cli.StringFlag{Name: "agent", Usage: "ask the agent at this `TARGET`, as in unix:///run/zhiyun/l5.sock, and the device's processes that call the service"},
	}
	ask := with(explainAtServer)
	return verb("explain", "SERVICE", "say why each instance gets the weight that it gets", "zhiyun l5 explain shop.cart --agent unix:///run/zhiyun/l5.sock", flags, func(c *cli.Context) error {
		if c.String("agent") != "" {
			return explainAtAgent(c)
		}
		return ask(c)
	})
}

func explainAtServer(c *cli.Context, a *control.Client) error {
	service, err := arg(c, 0, "service id")
	if err != nil {
		return err
	}
	answer, err := call(c.Context, a.Registry.Explain, &controlpb.ServiceRequest{Service: service, Caller: c.String("caller")})
	if err != nil {
		return err
	}
	if err := printDocument(c, json.RawMessage(answer.Json)); err != nil {
		return err
	}
	var of struct {
		Instances []json.RawMessage `json:"instances"`
	}
	if json.Unmarshal(answer.Json, &of) == nil && len(of.Instances) == 0 {
		return noInstance(service)
	}
	return nil
}

// noInstance is the error for a service that is not there; who calls it all the same may be worth to know, so what there
// is is printed first.
func noInstance(service string) error {
	return fmt.Errorf("no instance of %s is registered; zhiyun l5 resolve lists the services there are", service)
}

// printDocument prints a document whole; as a table it would lose too much.
func printDocument(c *cli.Context, document any) error {
	if forPeople(c) {
		return printYAML(c.App.Writer, document)
	}
	return print(c, table{data: document})
}

// deviceView is what a device makes of a service.
type deviceView struct {
	Service   string         `json:"service"`
	Revision  int64          `json:"revision"`
	Grant     string         `json:"grant,omitempty"`
	Instances []instanceView `json:"instances"`
	Processes []processView  `json:"processes"`
}

type instanceView struct {
	Addr   string  `json:"addr"`
	Weight float64 `json:"effective_weight"`
	Reason string  `json:"reason"`
}

type processView struct {
	Peer        string          `json:"peer"`
	Explanation json.RawMessage `json:"explanation,omitempty"`
	Fault       string          `json:"fault,omitempty"`
}

func explainAtAgent(c *cli.Context) error {
	service, err := arg(c, 0, "service id")
	if err != nil {
		return err
	}
	client, base, err := transport.Dial(transport.DialConfig{Target: c.String("agent")})
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	answer, err := l5pbconnect.NewNameServiceClient(client, base).Explain(c.Context, connect.NewRequest(&l5pb.ExplainRequest{
		Service: service, Caller: c.String("caller"), Processes: true,
	}))
	if err != nil {
		return plainError(err)
	}
	out := deviceView{Service: service, Revision: answer.Msg.GetRevision(), Grant: answer.Msg.GetGrant(), Instances: []instanceView{}, Processes: []processView{}}
	for _, i := range answer.Msg.GetInstances() {
		out.Instances = append(out.Instances, instanceView{i.GetInstance().GetAddr(), i.GetEffectiveWeight(), i.GetReason()})
	}
	for _, p := range answer.Msg.GetProcesses() {
		view := processView{Peer: p.GetPeer(), Explanation: p.GetExplanation()}
		if !json.Valid(view.Explanation) {
			view.Explanation, view.Fault = nil, "it does not answer; a program of before this version cannot"
		}
		out.Processes = append(out.Processes, view)
	}
	if err := printDocument(c, out); err != nil {
		return err
	}
	if len(out.Instances) == 0 {
		return fmt.Errorf("the agent knows no instance of %s: no program of this device calls it, or none is registered; zhiyun l5 resolve lists the services there are", service)
	}
	return nil
}
