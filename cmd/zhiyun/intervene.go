package main

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

func itemFlag() cli.Flag {
	return &cli.IntFlag{Name: "item", Usage: "`N`, from 0, of a step with each"}
}

func resultFlag() cli.Flag {
	return &cli.StringFlag{Name: "result", Usage: "`JSON` object, or @FILE, that later steps take for this one's output"}
}

// intervene is a verb on one step of an open execution, or of many.
func intervene(name, short, more string, flags ...cli.Flag) *cli.Command {
	example := "zhiyun flow " + name + " 019ab3f2 install" + more + " --reason '" + why(name) + "'\n  $ zhiyun flow " + name + " --all install" + more + " --flow expand --device d7 --dry-run"
	return change(name, "ID STEP", short, example, orderFlags(flags...), with(func(c *cli.Context, a *control.Client) error {
		at := 1
		if c.Bool("all") {
			at = 0
		}
		step, err := arg(c, at, "step's name")
		if err != nil {
			return err
		}
		if name == "settle" && c.Bool("done") == c.Bool("undone") {
			return usage("settle: give exactly one of --done and --undone")
		}
		request := &controlpb.InterveneRequest{Verb: name, Step: step, Item: int32(c.Int("item")), Done: c.Bool("done"), Case: c.String("case")}
		if _, err := strconv.Atoi(request.Case); err == nil {
			request.Case = "case " + request.Case
		}
		if request.Input, err = objectFlag(c, "input"); err != nil {
			return err
		}
		if request.Output, err = objectFlag(c, "result"); err != nil {
			return err
		}
		return giveOrder(c, a, request, 1)
	}))
}

// objectFlag is a flag's JSON object, or that in the file that it names.
func objectFlag(c *cli.Context, name string) ([]byte, error) {
	content, err := jsonFlag(c, name)
	var object map[string]json.RawMessage
	if err == nil && content != nil && (json.Unmarshal(content, &object) != nil || object == nil) {
		return nil, usage("--%s %q: want a JSON object, or @FILE with one", name, content)
	}
	return content, err
}

// jsonFlag is a flag's JSON, or that in the file that it names; nil if it is not given.
func jsonFlag(c *cli.Context, name string) ([]byte, error) {
	content := []byte(c.String(name))
	if len(content) == 0 {
		return nil, nil
	}
	if path, ok := strings.CutPrefix(string(content), "@"); ok {
		var err error
		if content, err = os.ReadFile(path); err != nil {
			return nil, usage("--%s: %v", name, err)
		}
	}
	if !json.Valid(content) {
		return nil, usage("--%s %q: want JSON, or @FILE with it", name, content)
	}
	return content, nil
}
