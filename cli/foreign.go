package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// foreignFlag is a flag of celery that has no meaning here. Scripts carry such flags along, so each gets an answer that
// says what to write instead, rather than "unknown flag". One without an answer asks for what is so anyway, and is
// accepted.
type foreignFlag struct {
	name, short string
	isBool      bool
	answer      string
}

var foreignGlobal = []foreignFlag{
	{"app", "A", false, "Go has no app module; the tasks are compiled into the binary that calls cli.Main"},
	{"loader", "", false, "Go has no loaders; write the settings into a YAML file and name it with --config"},
	{"workdir", "", false, "change the folder before: cd DIR && ..."},
	{"no-color", "C", true, ""},
	{"skip-checks", "", true, ""},
}

var foreignWorker = []foreignFlag{
	{"detach", "D", true, "leave that to the service manager (systemd, Docker), or use nohup ... &"},
	{"pidfile", "", false, "leave that to the service manager (systemd, Docker)"},
	{"uid", "", false, "leave that to the service manager (systemd, Docker)"},
	{"gid", "", false, "leave that to the service manager (systemd, Docker)"},
	{"umask", "", false, "leave that to the service manager (systemd, Docker)"},
	{"executable", "", false, "Go has no interpreter to choose"},
	{"purge", "", true, "empty the queues before, with the command purge"},
	{"discard", "", true, "empty the queues before, with the command purge"},
	{"include", "I", false, "tasks are compiled in; import their package and register them in the mux"},
	{"optimization", "O", false, ""}, // every worker is "fair": a task goes to a free slot only
}

var foreignBeat = []foreignFlag{
	{"detach", "", true, "leave that to the service manager (systemd, Docker), or use nohup ... &"},
	{"uid", "", false, "leave that to the service manager (systemd, Docker)"},
	{"gid", "", false, "leave that to the service manager (systemd, Docker)"},
	{"umask", "", false, "leave that to the service manager (systemd, Docker)"},
	{"executable", "", false, "Go has no interpreter to choose"},
}

// foreignCommands are celery's commands that have no counterpart.
var foreignCommands = map[string]bool{"logtool": true, "migrate": true, "multi": true, "shell": true, "upgrade": true}

func addForeignFlags(flags *pflag.FlagSet, all []foreignFlag) {
	for _, f := range all {
		if f.isBool {
			flags.BoolP(f.name, f.short, false, "")
		} else {
			flags.StringP(f.name, f.short, "", "")
		}
		_ = flags.MarkHidden(f.name) // the error is that of an unknown name
	}
}

// refuseForeignFlags answers the first flag given that has no meaning here.
func refuseForeignFlags(cmd *cobra.Command) error {
	for _, all := range [][]foreignFlag{foreignGlobal, foreignWorker, foreignBeat} {
		for _, f := range all {
			given := cmd.Flags().Lookup(f.name)
			if f.answer == "" || given == nil || !given.Hidden || !given.Changed {
				continue
			}
			name := "--" + f.name
			if f.short != "" {
				name = "-" + f.short + "/" + name
			}
			return usage(name+": "+f.answer, "", "")
		}
	}
	return nil
}
