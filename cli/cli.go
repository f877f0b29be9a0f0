// Package cli is every gelery command as a library, so that a user's own binary is one line:
//
//	func main() {
//		mux := worker.NewMux()
//		worker.Handle(mux, Add, add)
//		cli.Main(mux) // go run . worker -Q math -c 100, go run . call tasks.add --args '[2, 3]' …
//	}
//
// The verbs, flags and exit codes are Celery's where Celery has them. Standard output is data, standard error is talk;
// `-o json` is a stable contract, documented at the type each command prints.
//
// # Settings
//
// A flag wins over its environment variable, that over a file of settings (see package settings), that over the default.
// Every flag of a command has the variable Celery's command line gives it: CELERY_WORKER_CONCURRENCY, CELERY_CALL_QUEUE;
// every setting has one too: CELERY_TASK_DEFAULT_QUEUE. Workers prefer CELERY_BROKER_READ_URL to CELERY_BROKER_URL,
// producers CELERY_BROKER_WRITE_URL.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9/logging"
	"github.com/spf13/cobra"

	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/settings"
	"github.com/gelery/gelery/worker"

	// The drivers of the stock command; a program that calls Main has them all.
	_ "github.com/gelery/gelery/backends/filesystem"
	_ "github.com/gelery/gelery/backends/memory"
	_ "github.com/gelery/gelery/backends/redis"
	_ "github.com/gelery/gelery/backends/sql/mysql"
	_ "github.com/gelery/gelery/backends/sql/postgresql"
	_ "github.com/gelery/gelery/backends/sql/sqlite"
	_ "github.com/gelery/gelery/transport/memory"
	_ "github.com/gelery/gelery/transport/rabbitmq"
	_ "github.com/gelery/gelery/transport/redis"
)

// Main runs the command line of the process with the tasks of the mux, which may be nil, and ends the process with the
// command's exit code. SIGINT, SIGTERM and SIGQUIT stop a worker in stages (see `worker --help`) and end any other
// command.
func Main(mux *worker.Mux, options ...Option) {
	signals := make(chan os.Signal, 4) // more than a worker's stages: none is lost while it is busy
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	a := &app{name: filepath.Base(os.Args[0]), mux: mux, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		env: os.Getenv, signals: signals, notify: signal.Notify}
	for _, option := range options {
		option(a)
	}
	code := a.run(context.Background(), os.Args[1:])
	if code == exitOK && a.again {
		err := startAgain()
		fmt.Fprintf(a.stderr, "%s: cannot be started again: %v\n", a.name, err)
		code = exitFailed
	}
	os.Exit(code)
}

// Run is Main for tests and for programs with a main of their own: it leaves signals alone and returns the exit code.
// When ctx ends, a worker stops warm and any other command gives up. Questions are read from the standard input.
func Run(ctx context.Context, mux *worker.Mux, args []string, stdout, stderr io.Writer, options ...Option) int {
	a := &app{name: "gelery", mux: mux, stdin: os.Stdin, stdout: stdout, stderr: stderr, env: os.Getenv}
	for _, option := range options {
		option(a)
	}
	return a.run(ctx, args)
}

// app is one run of the command line.
type app struct {
	name           string // the program, as help and errors call it
	mux            *worker.Mux
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string
	signals        <-chan os.Signal                     // nil: none
	notify         func(chan<- os.Signal, ...os.Signal) // asks for more of them; nil: not to be asked
	again          bool                                 // the program is to be started again when the command has ended

	args       []string
	entries    []*scheduler.Entry // of the program
	forgetful  bool               // a beat keeps nothing on the disk unless it is told where
	broker     string             // -b as given
	backend    string             // --result-backend as given
	configFile string             // --config as given
	settings   *settings.Settings
}

const (
	groupRun     = "run"
	groupCall    = "call"
	groupOperate = "operate"
	groupWatch   = "watch"
)

// commands make the sub-commands. A file that holds a command of its own may add it from an init function.
var commands = []func(*app) *cobra.Command{
	devCommand, workerCommand,
	callCommand, resultCommand,
	queuesCommand, purgeCommand, amqpCommand, doctorCommand,
	configCommand, versionCommand,
}

// run parses and executes, and turns what came of it into an exit code.
func (a *app) run(ctx context.Context, args []string) int {
	if a.mux == nil {
		a.mux = worker.NewMux()
	}
	logging.Disable() // go-redis' own, which writes to standard error past every setting; errors reach us anyway
	root := a.root()
	a.args = append([]string{}, args...) // never nil, for which cobra would read os.Args
	root.SetArgs(a.args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	// What no command returned came from the parser.
	var f *failure
	if !errors.As(err, &f) {
		f = usage(err.Error(), "", "see "+a.name+" --help")
	}
	f.print(a.stderr, a.name)
	return f.code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   a.name,
		Short: "Run, call and watch Celery tasks in Go",
		Long: `Run, call and watch Celery tasks in Go

Options may stand before or after the command. Each one of a command has an environment variable, as with celery:
CELERY_<COMMAND>_<OPTION>, for example CELERY_WORKER_CONCURRENCY. An option wins over its variable. Celery's settings
are read from a file and from variables too, which are weaker: see "config --help".

` + exitCodes,
		Example: `  ` + a.name + ` dev
  ` + a.name + ` --broker redis://localhost:6379/0 worker --queues celery --concurrency 8 --demo
  ` + a.name + ` --result-backend redis://localhost:6379/1 call dev.add --args '[2, 3]' --wait`,
		Args:              cobra.ArbitraryArgs, // an unknown command is answered by RunE
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.prepare,
		RunE:              a.noCommand,
		Version:           readVersion().String(),

		SuggestionsMinimumDistance: 2, // cobra's own default, which it sets only when it suggests by itself
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		for _, arg := range a.args {
			if cmd == root && foreignCommands[arg] {
				return a.foreignCommand(arg)
			}
		}
		return usage(flagError(err), "", "see "+cmd.CommandPath()+" --help")
	})
	root.AddGroup(&cobra.Group{ID: groupRun, Title: "Run tasks:"}, &cobra.Group{ID: groupCall, Title: "Call tasks:"},
		&cobra.Group{ID: groupWatch, Title: "Watch and steer workers:"}, &cobra.Group{ID: groupOperate, Title: "Operate a broker:"})
	flags := root.PersistentFlags()
	flags.SortFlags = false
	flags.StringVarP(&a.broker, "broker", "b", "", "broker URL (CELERY_BROKER_URL; default "+defaultBroker+")")
	flags.StringVar(&a.backend, "result-backend", "", "result backend URL (CELERY_RESULT_BACKEND; default none)")
	flags.StringVar(&a.configFile, "config", "", "`path` of a file of settings, YAML or JSON ("+settings.FileVariable+")")
	addForeignFlags(flags, foreignGlobal)
	for _, command := range commands {
		cmd := command(a)
		for _, c := range append(cmd.Commands(), cmd) {
			c.Example = strings.ReplaceAll(c.Example, "  gelery ", "  "+a.name+" ")
		}
		root.AddCommand(cmd)
	}
	return root
}

// noCommand answers a call without a command with the help, as celery does, and an unknown command with a hint.
func (a *app) noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	name := args[0]
	if foreignCommands[name] {
		return a.foreignCommand(name)
	}
	return usage("unknown command "+name, "", nearCommand(cmd, name))
}

// noSubcommand is noCommand for a command that has others below it.
func noSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return usage("unknown command "+cmd.CommandPath()+" "+args[0], "", nearCommand(cmd, args[0]))
}

// nearCommand is the advice to who has given a name that a command does not know.
func nearCommand(cmd *cobra.Command, name string) string {
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return "did you mean: " + cmd.CommandPath() + " " + near[0]
	}
	return "see " + cmd.CommandPath() + " --help"
}

func (a *app) foreignCommand(name string) *failure {
	return usage("there is no command "+name, "celery has one, "+a.name+" has not; celery's own works on the same broker",
		"see "+a.name+" --help for what there is")
}

// command is a cobra.Command.RunE that gets a context which the first signal ends, with an *interrupted as its cause. A
// second signal kills the process as if nobody listened.
func (a *app) command(f func(ctx context.Context, cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, release := a.interruptible(cmd.Context())
		defer release()
		return asFailure(ctx, f(ctx, cmd, args))
	}
}

// interruptible ends the context at the first signal. Release gives the signals back and must be called.
func (a *app) interruptible(parent context.Context) (ctx context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(parent)
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case sig := <-a.signals:
			signal.Reset()
			cancel(&interrupted{sig})
		case <-over:
		}
	}()
	return ctx, func() {
		close(over)
		<-ended
		cancel(nil)
	}
}
