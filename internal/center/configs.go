package center

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"time"
)

// Configs is the config center: templates, and parameters at levels of which the narrower overrides the wider.
type Configs struct {
	templates shelf[Template]
	params    shelf[Param]
	now       func() time.Time
}

// Level says how far a parameter reaches.
type Level string

// The levels, widest first.
const (
	LevelGlobal   Level = "global" // its owner is "all"
	LevelBusiness Level = "business"
	LevelModule   Level = "module"
	LevelSite     Level = "site"
	LevelDevice   Level = "device"
)

// Levels lists them in the order in which they apply: a later one overrides.
var levels = []Level{LevelGlobal, LevelBusiness, LevelModule, LevelSite, LevelDevice}

// Template is the text of a configuration file, in the language of text/template.
type Template struct {
	Name    string    `json:"name"`
	Body    string    `json:"body"`
	Version int       `json:"version"` // grows by one with each change
	SetBy   string    `json:"set_by"`
	SetAt   time.Time `json:"set_at"`
}

// Param is one parameter at one level.
type Param struct {
	Level Level  `json:"level"`
	Owner string `json:"owner"` // the business, module, site or device
	// Key is dotted words, as in db.host; a template reads it as .param.db.host.
	Key string `json:"key"`
	// Value is any JSON value. In a listing a secret one reads Masked.
	Value  json.RawMessage `json:"value"`
	Secret bool            `json:"secret,omitempty"`
	SetBy  string          `json:"set_by"`
	SetAt  time.Time       `json:"set_at"`
}

// Masked stands for the value of a secret parameter wherever values are shown.
const Masked = "********"

var maskedValue = json.RawMessage(`"` + Masked + `"`)

func (p Param) shown() Param {
	if p.Secret {
		p.Value = maskedValue
	}
	return p
}

func (p Param) key() string { return string(p.Level) + "/" + p.Owner + "/" + p.Key }

const maxTemplate = 256 << 10

// SetTemplate keeps a template after checking that it parses. The same body again changes nothing.
func (c *Configs) SetTemplate(ctx context.Context, name, body, actor string) (Template, error) {
	if err := firstOf(checkName("template", name), checkActor(actor)); err != nil {
		return Template{}, err
	}
	if len(body) > maxTemplate {
		return Template{}, fault("body", fmt.Sprintf("%d bytes", len(body)), "keep a template below %d bytes", maxTemplate)
	}
	if _, err := parse(name, body); err != nil {
		return Template{}, err
	}
	done, _, err := c.templates.change(ctx, name, func(old Template, exists bool) (Template, verdict, error) {
		if exists && old.Body == body {
			return old, keep, nil
		}
		return Template{Name: name, Body: body, Version: old.Version + 1, SetBy: actor, SetAt: c.now().UTC()}, write, nil
	})
	return done.value, err
}

// Template returns one template, or ErrNotFound.
func (c *Configs) Template(ctx context.Context, name string) (Template, error) {
	if err := checkName("template", name); err != nil {
		return Template{}, err
	}
	one, err := c.templates.must(ctx, name)
	return one.value, err
}

// Templates lists the templates in order of name.
func (c *Configs) Templates(ctx context.Context, page Page) ([]Template, string, error) {
	all, err := c.templates.list(ctx, "")
	if err != nil {
		return nil, "", err
	}
	return cut(all, page, nil)
}

func parse(name, body string) (*template.Template, error) {
	parsed, err := template.New(name).Option("missingkey=error").Funcs(functions).Parse(body)
	if err != nil {
		return nil, fault("template", name, "does not parse: %v", err)
	}
	return parsed, nil
}

func checkParam(level Level, owner, key string) error {
	if !slices.Contains(levels, level) {
		return fault("level", level, "give one of global, business, module, site, device")
	}
	if level == LevelGlobal && owner != "all" {
		return fault("owner", owner, "the owner of a global parameter is all")
	}
	if err := checkName("owner", owner); err != nil {
		return err
	}
	if !paramPattern.MatchString(key) || len(key) > 256 {
		return fault("key", key, "give dotted words of letters, digits and '_', as in db.host")
	}
	return nil
}

// Set keeps one parameter. The same value again changes nothing. A key that is a parameter cannot also be the
// parent of one (db and db.host) at the same level and owner.
func (c *Configs) Set(ctx context.Context, param Param, actor string) (Param, error) {
	if err := firstOf(checkParam(param.Level, param.Owner, param.Key), checkActor(actor)); err != nil {
		return Param{}, err
	}
	var compact bytes.Buffer
	if len(param.Value) > 64<<10 {
		return Param{}, fault("value", fmt.Sprintf("%d bytes", len(param.Value)), "keep a parameter below 64 KiB; larger contents are files")
	}
	// The value itself stays out of the fault: it may be a secret.
	if err := json.Compact(&compact, param.Value); err != nil {
		return Param{}, fault("value", fmt.Sprintf("of %s", param.Key), "give a JSON value: a string in quotes, a number, true, a list or an object")
	}
	siblings, err := c.params.list(ctx, string(param.Level)+"/"+param.Owner+"/")
	if err != nil {
		return Param{}, err
	}
	for _, one := range siblings {
		if strings.HasPrefix(one.value.Key, param.Key+".") || strings.HasPrefix(param.Key, one.value.Key+".") {
			return Param{}, fault("key", param.Key, "%q is set at the same place, and a key is a value or a parent, not both; unset it first", one.value.Key)
		}
	}
	param.Value, param.SetBy, param.SetAt = compact.Bytes(), actor, c.now().UTC()
	done, _, err := c.params.change(ctx, param.key(), func(old Param, exists bool) (Param, verdict, error) {
		if exists && bytes.Equal(old.Value, param.Value) && old.Secret == param.Secret {
			return old, keep, nil
		}
		return param, write, nil
	})
	return done.value.shown(), err
}

// Unset removes one parameter; nothing happens if it is absent.
func (c *Configs) Unset(ctx context.Context, level Level, owner, key string) error {
	if err := checkParam(level, owner, key); err != nil {
		return err
	}
	_, _, err := c.params.change(ctx, Param{Level: level, Owner: owner, Key: key}.key(),
		func(old Param, _ bool) (Param, verdict, error) { return old, remove, nil })
	return err
}

// Get returns one parameter, a secret one masked, or ErrNotFound.
func (c *Configs) Get(ctx context.Context, level Level, owner, key string) (Param, error) {
	if err := checkParam(level, owner, key); err != nil {
		return Param{}, err
	}
	one, err := c.params.must(ctx, Param{Level: level, Owner: owner, Key: key}.key())
	return one.value.shown(), err
}

// Params lists the parameters of a level, or of all for an empty one, and of one owner, or of all; secret values
// are masked.
func (c *Configs) Params(ctx context.Context, level Level, owner string, page Page) ([]Param, string, error) {
	sub := ""
	if level != "" {
		if !slices.Contains(levels, level) {
			return nil, "", fault("level", level, "give one of global, business, module, site, device")
		}
		sub = string(level) + "/"
		if owner != "" {
			sub += owner + "/"
		}
	}
	all, err := c.params.list(ctx, sub)
	if err != nil {
		return nil, "", err
	}
	out, next, err := cut(all, page, func(p Param) bool { return owner == "" || p.Owner == owner })
	for i := range out {
		out[i] = out[i].shown()
	}
	return out, next, err
}
