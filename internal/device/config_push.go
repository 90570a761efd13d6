package device

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"io/fs"
	"strings"
)

// ConfigFile is one rendered configuration file.
type ConfigFile struct {
	Path     string `json:"path" doc:"below the root"`
	Content  string `json:"content,omitempty" doc:"the rendered bytes; absent, they are the blob of digest"`
	Encoding string `json:"encoding,omitempty" enum:",base64" doc:"of content; default plain text"`
	Mode     string `json:"mode,omitempty" doc:"octal permissions; default 0644"`
	Digest   string `json:"digest,omitempty" doc:"sha256:HEX that the content must have"`
}

// ConfigPushIn is what config.push takes.
type ConfigPushIn struct {
	Configs []ConfigFile `json:"configs"`
}

// ConfigPushOut is what config.push tells.
type ConfigPushOut struct {
	Configs []WrittenConfig `json:"configs"`
}

// WrittenConfig is one file of ConfigPushOut.
type WrittenConfig struct {
	Path    string `json:"path"`
	Digest  string `json:"digest"`
	Changed bool   `json:"changed"`
}

// ConfigPush writes each configuration file in one motion; if one cannot be written none is changed. Codes:
// config.digest, path.outside, path.is_dir.
func ConfigPush(ctx context.Context, env Env, in ConfigPushIn) (ConfigPushOut, error) {
	return perform(ctx, env, "config.push", in, func(ctx context.Context, c *call) (ConfigPushOut, error) {
		type planned struct {
			path, content string
			mode          fs.FileMode
		}
		out := ConfigPushOut{Configs: []WrittenConfig{}}
		var plan []planned
		for _, f := range in.Configs {
			p, err := local(f.Path)
			if err != nil {
				return out, err
			}
			content, digits, err := c.rendered(ctx, f)
			if err != nil {
				return out, err
			}
			mode, err := parseMode(f.Mode)
			if err != nil {
				return out, err
			}
			have, haveMode, err := digestOf(c.root, p)
			if err != nil {
				return out, err
			}
			changed := have != digits || haveMode != mode
			out.Configs = append(out.Configs, WrittenConfig{p, "sha256:" + digits, changed})
			if changed {
				plan = append(plan, planned{p, content, mode})
				if err := c.journal.save(p); err != nil {
					return out, err
				}
			}
		}
		for _, f := range plan {
			if err := ctx.Err(); err != nil {
				return out, err
			}
			if err := c.parents(f.path); err != nil {
				return out, err
			}
			if _, err := put(c.root, f.path, strings.NewReader(f.content), f.mode, ""); err != nil {
				return out, err
			}
		}
		return out, nil
	})
}

// rendered returns the file's bytes: those of the input or, where it has none, the blob of its digest. A file that
// holds secrets comes by its digest, so that they enter no flow's record.
func (c *call) rendered(ctx context.Context, f ConfigFile) (content, digits string, err error) {
	if f.Content != "" || f.Digest == "" || f.Digest == emptyDigest {
		return f.bytes()
	}
	if digits, err = hexDigest(f.Digest); err != nil {
		return "", "", err
	}
	if err := need(c.Blobs != nil, "blob source", "set ZHIYUN_SERVER to the server's target"); err != nil {
		return "", "", err
	}
	blob, err := c.Blobs.Open(ctx, "sha256:"+digits)
	if err != nil {
		return "", "", err
	}
	defer blob.Close()
	text, err := io.ReadAll(&bounded{blob, inputLimit, f.Path})
	if err != nil {
		return "", "", err
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != digits {
		return "", "", later("blob.digest", "the server sent something else for sha256:%s", digits)
	}
	return string(text), digits, nil
}

// emptyDigest is that of a file without content.
const emptyDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func (f ConfigFile) bytes() (content, digits string, err error) {
	content = f.Content
	switch f.Encoding {
	case "":
	case "base64":
		raw, err := base64.StdEncoding.DecodeString(content)
		if err != nil {
			return "", "", fail("input.invalid", "config %s: %v", f.Path, err)
		}
		content = string(raw)
	default:
		return "", "", fail("input.invalid", "config %s: encoding %q; use base64 or leave it empty", f.Path, f.Encoding)
	}
	sum := sha256.Sum256([]byte(content))
	digits = hex.EncodeToString(sum[:])
	if f.Digest != "" {
		want, err := hexDigest(f.Digest)
		if err != nil {
			return "", "", err
		}
		if want != digits {
			return "", "", fail("config.digest", "config %s has digest sha256:%s, want sha256:%s", f.Path, digits, want)
		}
	}
	return content, digits, nil
}

// ConfigRestoreIn is what config.restore takes.
type ConfigRestoreIn struct {
	ConfigPushIn
	Done  *ConfigPushOut `json:"done,omitempty" doc:"the output of config.push, when it is undone"`
	Purge bool           `json:"purge,omitempty" doc:"remove the listed files, whoever wrote them; their content does not count"`
}

// ConfigRestore undoes the config.push of the same key. With Purge it removes the listed files, which
// device.restore undoes.
func ConfigRestore(ctx context.Context, env Env, in ConfigRestoreIn) (Undone, error) {
	if !in.Purge {
		return undo(ctx, env, "config.push")
	}
	in.Done = nil
	return perform(ctx, env, "config.restore", in, func(_ context.Context, c *call) (Undone, error) {
		var paths []string
		for _, f := range in.Configs {
			paths = append(paths, f.Path)
		}
		return Undone{State: "removed"}, c.purgeAll(paths)
	})
}
