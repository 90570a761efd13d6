package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// flagsFirst moves the flags of the verb that args call before its arguments, since the command-line library stops at
// the first argument, and people write "zhiyun get devices -o json". What follows a "--" stays as it is.
func flagsFirst(app *cli.App, args []string) []string {
	if len(args) == 0 {
		return args
	}
	head := []string{args[0]}
	rest := args[1:]
	commands, flags := app.Commands, app.Flags
	for len(rest) > 0 {
		command := find(commands, rest[0])
		if command == nil {
			break
		}
		head, rest = append(head, rest[0]), rest[1:]
		commands, flags = command.Subcommands, command.Flags
	}
	var first, last []string
	for i := 0; i < len(rest); i++ {
		switch word := rest[i]; {
		case word == "--":
			return append(append(append(head, first...), "--"), append(last, rest[i+1:]...)...)
		case len(word) < 2 || word[0] != '-':
			last = append(last, word)
		case word == "-h" || word == "--help": // of the verb: its arguments are no topics
			return append(head, "--help")
		default:
			first = append(first, word)
			if takesValue(flags, word) && i+1 < len(rest) {
				i++
				first = append(first, rest[i])
			}
		}
	}
	return append(append(head, first...), last...)
}

func find(commands []*cli.Command, name string) *cli.Command {
	for _, command := range commands {
		if command.HasName(name) {
			return command
		}
	}
	return nil
}

// takesValue says whether the word is a flag whose value is the next word.
func takesValue(flags []cli.Flag, word string) bool {
	name := strings.TrimLeft(word, "-")
	if strings.Contains(name, "=") {
		return false
	}
	for _, flag := range flags {
		for _, known := range flag.Names() {
			if known == name {
				value, documented := flag.(cli.DocGenerationFlag)
				return documented && value.TakesValue()
			}
		}
	}
	return false
}
