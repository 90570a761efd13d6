package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// rulesCommand is how an operator says where a service's calls go.
func rulesCommand() *cli.Command {
	return &cli.Command{
		Name: "rules", Usage: "routes by labels, locality and subsets of a service, and isolated instances",
		Subcommands: []*cli.Command{
			verb("get", "SERVICE", "print a service's rules, as set takes them", "zhiyun l5 rules get shop.cart > rules.yaml", nil, with(getRules)),
			change("set", "SERVICE [FILE]", "replace a service's rules by a file in YAML or JSON, or by stdin", "zhiyun l5 rules set shop.cart rules.yaml --reason 'canary of v2'",
				[]cli.Flag{
					&cli.Int64Flag{Name: "revision", Usage: "replace only the rules of this `REVISION`, as get tells it; 0: only if there are none", DefaultText: "any"},
					&cli.BoolFlag{Name: "none", Usage: "end all rules; no file is read"},
					reasonFlag(),
				}, with(setRules)),
			change("isolate", "SERVICE ADDR", "take all calls from an instance; it stays registered and shows the reason", "zhiyun l5 rules isolate shop.cart 10.0.0.7:8080 --reason 'heap dump'",
				[]cli.Flag{&cli.BoolFlag{Name: "end", Usage: "give the calls back"}, reasonFlag()}, with(isolate)),
		},
	}
}

func getRules(c *cli.Context, a *control.Client) error {
	service, err := arg(c, 0, "service id")
	if err != nil {
		return err
	}
	answer, err := call(c.Context, a.Registry.Rules, &controlpb.ServiceRequest{Service: service})
	if err != nil {
		return err
	}
	return showRules(c, service, answer)
}

func showRules(c *cli.Context, service string, answer *controlpb.RulesResponse) error {
	if len(answer.Rules) == 0 {
		answer.Rules = []byte("{}")
	}
	if !forPeople(c) {
		return print(c, table{data: json.RawMessage(answer.Rules)})
	}
	fmt.Fprintf(c.App.Writer, "# rules of %s at revision %d\n", service, answer.Revision)
	return printYAML(c.App.Writer, json.RawMessage(answer.Rules))
}

func setRules(c *cli.Context, a *control.Client) error {
	service, err := arg(c, 0, "service id")
	if err != nil {
		return err
	}
	q := &controlpb.SetRulesRequest{Service: service, Cause: cause(c)}
	if c.IsSet("revision") {
		revision := c.Int64("revision")
		q.Revision = &revision
	}
	if !c.Bool("none") {
		if q.Rules, err = readRules(c.Args().Get(1), c.App.Reader); err != nil {
			return err
		}
	}
	answer, err := call(c.Context, a.Registry.SetRules, q)
	if err != nil {
		return err
	}
	return showRules(c, service, answer)
}

// readRules returns the JSON of a file; none or "-" is stdin.
func readRules(path string, stdin io.Reader) ([]byte, error) {
	if path == "" {
		path = "-"
	}
	text, err := readFileOr(path, stdin)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, usage("%s is empty: write rules into it, or give --none to end all rules", path)
	}
	var document any
	if err := yaml.Unmarshal(text, &document); err != nil { // JSON is YAML
		return nil, usage("%s is neither YAML nor JSON: %v", path, err)
	}
	out, err := json.Marshal(document)
	if err != nil { // YAML's .nan and .inf, and keys that are no text
		return nil, usage("%s: rules are numbers, text, lists and maps as JSON has them: %v", path, err)
	}
	return out, nil
}

func isolate(c *cli.Context, a *control.Client) error {
	service, err := arg(c, 0, "service id")
	if err != nil {
		return err
	}
	addr, err := arg(c, 1, "address")
	if err != nil {
		return err
	}
	q := &controlpb.IsolateRequest{Service: service, Addr: addr, Cause: cause(c)}
	if !c.Bool("end") {
		if q.Reason = c.String("reason"); q.Reason == "" {
			return usage("--reason is empty: say why the instance takes no calls; everybody who looks at it will be shown that")
		}
	}
	_, err = call(c.Context, a.Registry.Isolate, q)
	return err
}
