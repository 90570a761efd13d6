package center

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template"
	tree "text/template/parse"
	"time"
)

// NoticeTemplate says how notices read at a sink. Title and Text are of text/template, over the fields id, kind, module, owner, device,
// severity, title, text, at and labels, with the functions and, or, not, eq, ne, lt, le, gt, ge, len, index, upper, lower, trim, cut (TEXT at most N
// characters long), or_else (the first that is not empty), json and local (a time at a place: local .at "Asia/Shanghai").
type NoticeTemplate struct {
	Name  string    `json:"name"`
	Title string    `json:"title,omitempty"` // default: the notice's own, or severity, kind and module
	Text  string    `json:"text"`
	Actor string    `json:"actor"`
	At    time.Time `json:"at"`
}

// maxNoticeText bounds what a template makes, in bytes.
const maxNoticeText = 64 << 10

var noticeFuncs = template.FuncMap{
	"upper": strings.ToUpper, "lower": strings.ToLower, "trim": strings.TrimSpace,
	"cut": func(most int, text string) string {
		runes := []rune(text)
		if most >= 0 && len(runes) > most {
			return string(runes[:most]) + "..."
		}
		return text
	},
	"or_else": func(texts ...string) string {
		for _, text := range texts {
			if text != "" {
				return text
			}
		}
		return ""
	},
	"json": func(value any) (string, error) {
		encoded, err := json.Marshal(value)
		return string(encoded), err
	},
	"local": func(at, place string) (string, error) {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			return "", err
		}
		zone, err := time.LoadLocation(place)
		if err != nil {
			return "", err
		}
		return when.In(zone).Format("2006-01-02 15:04:05 MST"), nil
	},
}

// allowedBuiltins are the functions of text/template that can neither fill the memory nor call anything.
var allowedBuiltins = []string{"and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index"}

// fields is what a template sees of a notice: no methods, no numbers to count to.
func (n Notice) fields() map[string]any {
	labels := n.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	return map[string]any{
		"id": n.ID, "kind": n.Kind, "module": n.Module, "owner": n.Owner, "device": n.Device, "severity": string(n.Severity),
		"title": n.Title, "text": n.Text, "at": n.At.UTC().Format(time.RFC3339), "labels": labels,
	}
}

// parseNotice compiles one text of a template. Only loops over labels are allowed, and only known fields and functions: a
// template ends soon, whoever wrote it.
func parseNotice(field, text string) (*template.Template, error) {
	if len(text) > 16<<10 {
		return nil, fault(field, text, "keep it below 16 KiB")
	}
	parsed, err := template.New(field).Funcs(noticeFuncs).Parse(text)
	if err != nil {
		return nil, fault(field, text, "%s", strings.TrimPrefix(err.Error(), "template: "))
	}
	if len(parsed.Templates()) > 1 {
		return nil, fault(field, text, "define makes templates that could call each other for ever; write it out")
	}
	if parsed.Tree == nil || parsed.Root == nil {
		return parsed, nil
	}
	if err := walkNotice(parsed.Root, 0); err != nil {
		return nil, fault(field, text, "%v", err)
	}
	return parsed, nil
}

func walkNotice(node tree.Node, loops int) error {
	var inner []tree.Node
	branch := func(b *tree.BranchNode) {
		inner = append(inner, b.Pipe, b.List)
		if b.ElseList != nil {
			inner = append(inner, b.ElseList)
		}
	}
	switch n := node.(type) {
	case *tree.ListNode:
		inner = n.Nodes
	case *tree.ActionNode:
		inner = []tree.Node{n.Pipe}
	case *tree.IfNode:
		branch(&n.BranchNode)
	case *tree.WithNode:
		branch(&n.BranchNode)
	case *tree.RangeNode:
		if loops > 0 || n.Pipe.String() != ".labels" && !strings.HasSuffix(n.Pipe.String(), ":= .labels") {
			return errors.New("range: only .labels can be gone through, and not within another range")
		}
		branch(&n.BranchNode)
		loops++
	case *tree.PipeNode:
		for _, command := range n.Cmds {
			inner = append(inner, command)
		}
	case *tree.CommandNode:
		inner = n.Args
	case *tree.FieldNode:
		if _, known := (Notice{}).fields()[n.Ident[0]]; !known && loops == 0 {
			return fmt.Errorf("there is no field .%s", n.Ident[0])
		}
	case *tree.ChainNode:
		inner = []tree.Node{n.Node}
	case *tree.IdentifierNode:
		if _, ours := noticeFuncs[n.Ident]; !ours && !slices.Contains(allowedBuiltins, n.Ident) {
			return fmt.Errorf("there is no function %s", n.Ident)
		}
	case *tree.TemplateNode:
		return errors.New("template: there is no other to call")
	}
	for _, one := range inner {
		if err := walkNotice(one, loops); err != nil {
			return err
		}
	}
	return nil
}

// short is a buffer that refuses more than its share.
type short struct{ bytes.Buffer }

func (b *short) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxNoticeText {
		return 0, fmt.Errorf("it makes more than %d bytes", maxNoticeText)
	}
	return b.Buffer.Write(p)
}

// render writes a notice as the template says.
func (t NoticeTemplate) render(n Notice) (Notice, error) {
	for _, part := range []struct {
		field string
		text  string
		to    *string
	}{{"title", t.Title, &n.Title}, {"text", t.Text, &n.Text}} {
		if part.text == "" {
			continue
		}
		parsed, err := parseNotice(part.field, part.text)
		if err != nil {
			return n, err
		}
		var out short
		if err := parsed.Execute(&out, n.fields()); err != nil {
			return n, fault(part.field, part.text, "%s", strings.TrimPrefix(err.Error(), "template: "))
		}
		*part.to = strings.TrimSpace(out.String())
	}
	return n, nil
}

// check tries the template on notices of every shape.
func (t NoticeTemplate) check() error {
	if t.Text == "" {
		return fault("text", t.Text, "say how a notice reads, as in {{.module}}: {{.text}}")
	}
	if err := firstOf(checkName("template", t.Name), checkActor(t.Actor)); err != nil {
		return err
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, notice := range []Notice{
		{ID: "1", Kind: "load", Severity: Info, Text: "text", At: at},
		{ID: "2", Kind: "flow.stuck", Module: "shop.cart", Owner: "ann", Device: "d1", Severity: Critical, Title: "title", Text: "text", At: at, Labels: map[string]string{"site": "sz-1"}},
	} {
		if _, err := t.render(notice); err != nil {
			return err
		}
	}
	return nil
}

// SetTemplate keeps a template, in place of one of its name. It is tried before.
func (n *Notify) SetTemplate(ctx context.Context, t NoticeTemplate) (NoticeTemplate, error) {
	if err := t.check(); err != nil {
		return NoticeTemplate{}, err
	}
	t.At = n.now().UTC()
	done, _, err := n.templates.change(ctx, t.Name, func(NoticeTemplate, bool) (NoticeTemplate, verdict, error) { return t, write, nil })
	return done.value, err
}

// Templates lists the templates by name.
func (n *Notify) Templates(ctx context.Context, page Page) ([]NoticeTemplate, string, error) {
	list, err := n.templates.list(ctx, "")
	if err != nil {
		return nil, "", err
	}
	return cut(list, page, func(NoticeTemplate) bool { return true })
}

// RemoveTemplate removes a template that no route uses. ErrNotFound if there is none.
func (n *Notify) RemoveTemplate(ctx context.Context, name string) error {
	return n.removed(ctx, "template", name, func(r Route) bool { return r.Template == name }, func() error {
		_, was, err := n.templates.change(ctx, name, func(t NoticeTemplate, _ bool) (NoticeTemplate, verdict, error) { return t, remove, nil })
		return absent(err, was, "template", name)
	})
}
