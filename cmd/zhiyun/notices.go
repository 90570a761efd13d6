package main

import (
	"encoding/json"
	"io"
	"os"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

var noticeColumns = []string{"ID:notice.id", "AT:notice.at", "SEVERITY:notice.severity", "KIND:notice.kind", "MODULE:notice.module", "DEVICE:notice.device", "OUTCOME:outcome", "ATTEMPTS:targets.attempts", "FAULTS:faults", "TEXT:notice.text"}

// noticeHistory lists what became of notices.
func noticeHistory() *cli.Command {
	history := verb("history", "", "list the notices and what became of them, the newest first; dead are those that a sink was given up for", "zhiyun notify history --outcome dead",
		[]cli.Flag{&cli.StringFlag{Name: "outcome", Usage: "only those that are `OUTCOME`: sending, delivered, failed, dead, muted or silenced"}, limitFlag()},
		with(func(c *cli.Context, a *control.Client) error {
			items, err := pages(c.Int("limit"), func(page *controlpb.Page) (*controlpb.Listing, error) {
				return call(c.Context, a.Notify.Deliveries, &controlpb.NotifyListRequest{Outcome: c.String("outcome"), Page: page})
			})
			if err != nil {
				return err
			}
			return printDocuments(c, items, noticeColumns...)
		}))
	history.Aliases = []string{"list"}
	return history
}

func noticeRules(name, kind, short string, columns ...string) *cli.Command {
	return verb(name, "", short, "zhiyun notify "+name, []cli.Flag{limitFlag()}, with(func(c *cli.Context, a *control.Client) error {
		items, err := pages(c.Int("limit"), func(page *controlpb.Page) (*controlpb.Listing, error) {
			return call(c.Context, a.Notify.Rules, &controlpb.NotifyRuleRequest{Kind: kind, Page: page})
		})
		if err != nil {
			return err
		}
		return printDocuments(c, items, columns...)
	}))
}

func setNoticeRule(c *cli.Context, a *control.Client) error {
	path, err := arg(c, 1, "file")
	if err != nil {
		return err
	}
	content, err := readFileOr(path, c.App.Reader)
	if err != nil {
		return err
	}
	var document map[string]any
	if err := yaml.Unmarshal(content, &document); err != nil {
		return usage("%s: %v", path, err)
	}
	encoded, err := json.Marshal(document)
	if err != nil {
		return usage("%s: %v", path, err)
	}
	answer, err := call(c.Context, a.Notify.SetRule, &controlpb.NotifyRuleRequest{Kind: c.Args().First(), Json: encoded, Cause: cause(c)})
	if err != nil {
		return err
	}
	return printDocuments(c, []json.RawMessage{answer.Json}, "NAME:name", "BY:actor", "AT:at")
}

// readFileOr reads a file; "-" is stdin.
func readFileOr(path string, stdin io.Reader) (content []byte, err error) {
	if path == "-" {
		content, err = io.ReadAll(stdin)
	} else {
		content, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, usage("%v", err)
	}
	return content, nil
}
