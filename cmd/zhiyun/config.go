package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// configFlag names the YAML file whose keys are the verb's flags. What stands on the command line comes first,
// then the environment, then the file.
func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", EnvVars: []string{"ZHIYUN_CONFIG"}, Usage: "YAML `FILE` with values for the flags of this verb"}
}

// fromFile sets, from the file that --config names, the flags that neither the command line nor the environment set.
func fromFile(c *cli.Context) error {
	path := c.String("config")
	if path == "" {
		return nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return usage("--config: %v", err)
	}
	values := make(map[string]yaml.Node)
	if err := yaml.Unmarshal(content, &values); err != nil {
		return usage("--config %s: %v", path, err)
	}
	var known []string
	for _, flag := range c.Command.Flags {
		known = append(known, flag.Names()[0])
	}
	for name, node := range values {
		if !slices.Contains(known, name) || name == "config" {
			return usage("--config %s:%d: no flag is called %q; the flags are %v", path, node.Line, name, known)
		}
		if c.IsSet(name) {
			continue
		}
		texts := []string{node.Value}
		if node.Kind == yaml.SequenceNode {
			texts = nil
			for _, item := range node.Content {
				texts = append(texts, item.Value)
			}
		}
		for _, text := range texts {
			if err := c.Set(name, text); err != nil {
				return usage("--config %s:%d: %s: %v", path, node.Line, name, err)
			}
		}
	}
	return nil
}

// defaultDir is where server and dev keep their data, and where the verbs look for the server: /var/lib/zhiyun
// for root's servers as packages install them, else below the home folder.
func defaultDir() string {
	if dir := os.Getenv("ZHIYUN_DIR"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	return filepath.Join(home, ".zhiyun")
}

// serverFlags say where the server is and who calls.
func serverFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "server", EnvVars: []string{"ZHIYUN_SERVER"}, Usage: "`TARGET`: unix:///path, http://127.0.0.1:port or https://host:port", DefaultText: "the socket of the server or of zhiyun dev on this machine"},
		&cli.StringFlag{Name: "token-file", EnvVars: []string{"ZHIYUN_TOKEN_FILE"}, Usage: "`FILE` with the token to call with; a unix socket needs none"},
		&cli.StringFlag{Name: "ca", EnvVars: []string{transport.EnvCA}, Usage: "`FILE` with the CA of an https server", DefaultText: "the system's roots"},
		&cli.StringFlag{Name: "client-cert", EnvVars: []string{transport.EnvCert}, Usage: "`FILE` with a client certificate, for a server with --client-ca"},
		&cli.StringFlag{Name: "client-key", EnvVars: []string{transport.EnvKey}, Usage: "`FILE` with its key"},
	}
}

// tlsFiles are what the flags name for https servers.
func tlsFiles(c *cli.Context) transport.ClientFiles {
	return transport.ClientFiles{CA: c.String("ca"), Cert: c.String("client-cert"), Key: c.String("client-key")}
}

// target is the server that the verb talks to.
func target(c *cli.Context) (string, error) {
	if given := c.String("server"); given != "" {
		return given, nil
	}
	dir := defaultDir()
	for _, socket := range []string{filepath.Join(dir, "server", "control.sock"), filepath.Join(dir, "dev", "server", "control.sock")} {
		if info, err := os.Stat(socket); err == nil && info.Mode()&os.ModeSocket != 0 {
			return "unix://" + socket, nil
		}
	}
	return "", usage("no server found below %s: start one with 'zhiyun dev' or 'zhiyun server', or name it with --server", dir)
}

// verb puts together a command that calls the server.
func verb(name, args, short, example string, flags []cli.Flag, action cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:        name,
		ArgsUsage:   args,
		Usage:       short,
		Description: fmt.Sprintf("Example:\n\n  $ %s", example),
		Flags:       append(flags, append(serverFlags(), outputFlag())...),
		Action:      action,
	}
}
