package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// newApp is the command line: every verb, by what it is about.
func newApp() *cli.App {
	app := &cli.App{
		Name:  "zhiyun",
		Usage: "operate services that run on many devices",
		Description: `The daemons, the tools of the flows and the operator's verbs in one binary. The verbs find the server of this machine
by themselves; --server names another. Flags come first, then the environment, then --config.

Exit codes: 0 it worked; 1 it failed; 2 the call was wrong: a flag, a file, a document, or the name of what is not there;
3 not now: the server is away or busy, the same call may succeed later; 130 and 143 it was ended by Ctrl-C, or by SIGTERM.

Start here:

  $ zhiyun demo                 # a burst is absorbed with no hands
  $ zhiyun dev --devices 4      # a whole Zhiyun on this machine`,
		EnableBashCompletion:   true,
		UseShortOptionHandling: true,
		HideHelpCommand:        true,
		ExitErrHandler:         func(*cli.Context, error) {}, // main decides
		Commands: []*cli.Command{
			demoCommand(), devCommand(), serverCommand(), agentCommand(),
			getCommand(), describeCommand(), planCommand(), applyCommand(), deleteCommand(),
			flowCommand(), triggerCommand(), grayCommand(), scaleCommand(), driftCommand(), l5Command(),
			packageCommand(), fileCommand(), configCommand(), permissionCommand(), notifyCommand(),
			deviceCommand(), toolCommand(), pauseCommand(), resumeCommand(), freezeCommand(), unfreezeCommand(), auditCommand(), doctorCommand(), tokenCommand(), certsCommand(),
			benchCommand(), sampleCommand(),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usage("no verb is called %q", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		OnUsageError: func(_ *cli.Context, err error, _ bool) error { return usage("%v", err) },
	}
	for _, command := range app.Commands {
		mend(command)
	}
	return app
}

// demand has the verb itself ask for the flags that it cannot do without: the library would print the help, and end with another code.
func demand(command *cli.Command) {
	var names []string
	for _, flag := range command.Flags {
		if text, is := flag.(*cli.StringFlag); is && text.Required {
			text.Required = false
			text.Usage += "; required"
			names = append(names, text.Name)
		}
	}
	if action := command.Action; len(names) > 0 {
		command.Action = func(c *cli.Context) error {
			if err := fromFile(c); err != nil {
				return err
			}
			for _, name := range names {
				if c.String(name) == "" {
					return usage("%s: --%s is missing", c.Command.HelpName, name)
				}
			}
			return action(c)
		}
	}
}

// mend gives each command the same answer to a wrong flag, a wrong name, and an argument too many: one that is passed over
// in silence was meant as something.
func mend(command *cli.Command) {
	command.HideHelpCommand = true // --help is there, and among verbs "help" reads as one of them
	demand(command)
	if action, most := command.Action, len(strings.Fields(command.ArgsUsage)); action != nil && len(command.Subcommands) == 0 && !strings.Contains(command.ArgsUsage, "...") {
		command.Action = func(c *cli.Context) error {
			if c.NArg() > most {
				return usage("%s: %q is one argument too many", c.Command.HelpName, c.Args().Get(most))
			}
			return action(c)
		}
	}
	command.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return usage("%v", err) }
	for _, sub := range command.Subcommands {
		mend(sub)
	}
	if len(command.Subcommands) > 0 && command.Action == nil {
		command.Action = func(c *cli.Context) error {
			if c.Args().Present() {
				return usage("%s: no verb is called %q", c.Command.HelpName, c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		}
	}
}
