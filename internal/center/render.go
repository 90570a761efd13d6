package center

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/template"
)

// Scope says for whom a configuration is rendered. Empty names leave their level out.
type Scope struct {
	Business string
	Module   string
	Site     string
	Device   string
	// Facts are what a template may read beside the parameters, each under its own name: .device.addr comes
	// from Facts["device"]. The name "param" is the parameters'.
	Facts map[string]any
}

func (s Scope) owner(level Level) string {
	switch level {
	case LevelGlobal:
		return "all"
	case LevelBusiness:
		return s.Business
	case LevelModule:
		return s.Module
	case LevelSite:
		return s.Site
	case LevelDevice:
		return s.Device
	}
	return ""
}

// Provenance says where the value in force of one key comes from.
type Provenance struct {
	Key    string          `json:"key"`
	Value  json.RawMessage `json:"value"` // Masked for a secret
	Secret bool            `json:"secret,omitempty"`
	Level  Level           `json:"level"`
	Owner  string          `json:"owner"`
	// Overrides names the wider places that set the key too, widest first, as level/owner.
	Overrides []string `json:"overrides,omitempty"`
}

// Resolve returns the parameters in force in a scope, in order of key, secrets masked.
func (c *Configs) Resolve(ctx context.Context, scope Scope) ([]Provenance, error) {
	out, _, err := c.resolve(ctx, scope)
	for i := range out {
		if out[i].Secret {
			out[i].Value = maskedValue
		}
	}
	return out, err
}

func (c *Configs) resolve(ctx context.Context, scope Scope) ([]Provenance, map[string]any, error) {
	force := make(map[string]Provenance)
	for _, level := range levels {
		owner := scope.owner(level)
		if owner == "" {
			continue
		}
		if err := checkName(string(level), owner); err != nil {
			return nil, nil, err
		}
		set, err := c.params.list(ctx, string(level)+"/"+owner+"/")
		if err != nil {
			return nil, nil, err
		}
		for _, one := range set {
			p := Provenance{Key: one.value.Key, Value: one.value.Value, Secret: one.value.Secret, Level: level, Owner: owner}
			if wider, ok := force[p.Key]; ok {
				p.Overrides = append(slices.Clone(wider.Overrides), string(wider.Level)+"/"+wider.Owner)
				// A secret stays one, even where somebody overrides it in the open.
				p.Secret = p.Secret || wider.Secret
			}
			force[p.Key] = p
		}
	}
	out := slices.SortedFunc(maps.Values(force), func(a, b Provenance) int { return strings.Compare(a.Key, b.Key) })
	tree := make(map[string]any)
	for _, p := range out {
		if err := plant(tree, p); err != nil {
			return nil, nil, err
		}
	}
	return out, tree, nil
}

// plant puts a value at its dotted key.
func plant(tree map[string]any, p Provenance) error {
	decoder := json.NewDecoder(bytes.NewReader(p.Value))
	decoder.UseNumber() // 10000000 renders as it was written, not as 1e+07
	var value any
	if err := decoder.Decode(&value); err != nil {
		return fault("parameter", p.Key, "of %s %s is no JSON value; set it again", p.Level, p.Owner)
	}
	words := strings.Split(p.Key, ".")
	for _, word := range words[:len(words)-1] {
		below, ok := tree[word].(map[string]any)
		if !ok {
			if _, taken := tree[word]; taken {
				return fault("parameter", p.Key, "of %s %s lies below a key that has a value at another level; name one of the two differently", p.Level, p.Owner)
			}
			below = make(map[string]any)
			tree[word] = below
		}
		tree = below
	}
	tree[words[len(words)-1]] = value
	return nil
}

// Rendered is a configuration file, ready to be written.
type Rendered struct {
	Template string       `json:"template"`
	Version  int          `json:"version"`
	Body     []byte       `json:"body"`
	Digest   string       `json:"digest"` // of Body
	Params   []Provenance `json:"params"` // all in force in the scope, secrets masked
	Secret   bool         `json:"secret"` // Body holds, or with secrets shown would hold, secret values
}

// Render renders a template in a scope. Secrets in Body are masked unless reveal is set: a device that writes the
// file needs them, a person who looks does not. The body's digest is of what was rendered, masks included.
func (c *Configs) Render(ctx context.Context, name string, scope Scope, reveal bool) (Rendered, error) {
	one, err := c.Template(ctx, name)
	if err != nil {
		return Rendered{}, err
	}
	params, tree, err := c.resolve(ctx, scope)
	if err != nil {
		return Rendered{}, err
	}
	out := Rendered{Template: name, Version: one.Version, Params: params}
	for i := range out.Params {
		if !out.Params[i].Secret {
			continue
		}
		out.Secret, out.Params[i].Value = true, maskedValue
		if !reveal {
			uproot(tree, strings.Split(out.Params[i].Key, "."))
		}
	}
	data := maps.Clone(scope.Facts)
	if data == nil {
		data = make(map[string]any)
	}
	data["param"] = tree
	parsed, err := parse(name, one.Body)
	if err != nil {
		return Rendered{}, err
	}
	body := &bounded{ctx: ctx}
	if err := parsed.Execute(body, data); err != nil {
		return Rendered{}, fmt.Errorf("%w: module %q, device %q", fault("template", name, "does not render: %v", err), scope.Module, scope.Device)
	}
	sum := sha256.Sum256(body.Bytes())
	out.Body, out.Digest = body.Bytes(), DigestPrefix+hex.EncodeToString(sum[:])
	return out, nil
}

func uproot(tree map[string]any, words []string) {
	for _, word := range words[:len(words)-1] {
		tree, _ = tree[word].(map[string]any)
	}
	tree[words[len(words)-1]] = Masked
}

// bounded ends a template that writes without end.
type bounded struct {
	bytes.Buffer
	ctx context.Context
}

const maxRendered = 4 << 20

func (b *bounded) Write(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.Len()+len(p) > maxRendered {
		return 0, fmt.Errorf("the file grows over %d bytes", maxRendered)
	}
	return b.Buffer.Write(p)
}

var _ io.Writer = (*bounded)(nil)

// functions are what a template may call beside the language's own.
var functions = template.FuncMap{
	"json": func(v any) (string, error) {
		out, err := json.Marshal(v)
		return string(out), err
	},
	"join": func(sep string, list []any) string {
		words := make([]string, len(list))
		for i, v := range list {
			words[i] = fmt.Sprint(v)
		}
		return strings.Join(words, sep)
	},
	"upper": strings.ToUpper,
	"lower": strings.ToLower,
}
