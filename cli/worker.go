package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/worker"
)

// workerFlags are the flags of commands that run a worker.
type workerFlags struct {
	connectionFlags
	logFlags
	declare       queueFlags
	queues        []string
	concurrency   int
	hostname      string
	accept        []string
	prefetch      int
	resultExtends bool
	trackStarted  bool
	demo          bool
	quiet         bool
	stopTimeout   seconds
}

func (f *workerFlags) add(cmd *cobra.Command, logLevel string) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringSliceVarP(&f.queues, "queues", "Q", nil, "`names` of the queues to serve, separated by commas (default celery)")
	flags.IntVarP(&f.concurrency, "concurrency", "c", 0, "`number` of tasks that run at once (default the number of CPUs)")
	flags.StringVarP(&f.hostname, "hostname", "n", "celery@%h", "node `name`; %h host, %n its first part, %d the rest")
	flags.StringVarP(&f.level, "loglevel", "l", logLevel, "`level`: DEBUG, INFO, WARNING, ERROR or CRITICAL")
	flags.StringVarP(&f.file, "logfile", "f", "", "`path` of the log (default standard error)")
	flags.StringVar(&f.format, "log-format", "text", "`form` of the log: text or json")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "no banner")
	flags.IntVar(&f.prefetch, "prefetch-multiplier", 4, "`number` of messages held for each running task, itself included")
	flags.StringSliceVar(&f.accept, "accept-content", []string{"json"}, "`names` of serializers to decode: json, msgpack, yaml, pickle")
	flags.BoolVar(&f.resultExtends, "result-extended", false, "store name, arguments, worker and queue with each result")
	flags.BoolVar(&f.trackStarted, "track-started", false, "store the state STARTED when a task begins")
	flags.Var(&f.stopTimeout, "stop-timeout", "how long a warm stop waits for running tasks (default for ever)")
	f.addBroker(cmd)
	f.addBackend(cmd)
}

func (f *workerFlags) workerConfig(log *slog.Logger) worker.Config {
	return worker.Config{Queues: f.queues, Concurrency: f.concurrency, PrefetchMultiplier: f.prefetch, Hostname: f.hostname,
		TrackStarted: f.trackStarted, ResultExtended: f.resultExtends, StopTimeout: f.stopTimeout.duration(), Logger: log}
}

// validate finds what worker.New would find, which happens after the connection is there: too late to tell of a typo.
func (f *workerFlags) validate() error {
	switch {
	case f.concurrency < 0:
		return usage(fmt.Sprintf("--concurrency %d is negative", f.concurrency), "", "")
	case f.prefetch < 1:
		return usage(fmt.Sprintf("--prefetch-multiplier %d is not at least 1", f.prefetch), "", "")
	}
	if f.concurrency == 0 {
		f.concurrency = runtime.NumCPU()
	}
	if _, err := worker.NodeName(f.hostname); err != nil {
		return usage(err.Error(), "", "")
	}
	return nil
}

func workerCommand(a *app) *cobra.Command {
	f := &workerFlags{}
	var taskFiles []string
	cmd := &cobra.Command{
		Use:     "worker",
		GroupID: groupRun,
		Short:   "Run tasks from queues until stopped",
		Long: `Run tasks from queues until stopped

A broker that is not there yet is waited for. When the worker is ready it says "<hostname> ready." on standard error.

SIGTERM or SIGINT (Ctrl-C) stops it warm: it receives nothing more, ends what runs, and gives the rest back to the
queues. A second one stops it cold: running tasks are cancelled and given back. A third one, or SIGQUIT, ends the
process at once; what it held returns to the queues when its lease ends.

Exit codes: 0 stopped warm, 1 stopped cold or could not begin, 2 wrong usage, 70 stopped by itself because too many tasks
go on running after they were given up at their time limit: start it again.`,
		Example: `  gelery --broker redis://localhost:6379/0 --result-backend redis://localhost:6379/1 worker --queues math,mail --concurrency 100
  gelery worker --demo --loglevel INFO`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.demo {
				addDemo(a.mux)
			}
			if err := a.registerTaskFiles(taskFiles); err != nil {
				return err
			}
			return asFailure(cmd.Context(), a.work(cmd.Context(), f, a.brokerURL("READ"), a.backendURL(), func() {}))
		},
	}
	f.add(cmd, "WARNING")
	f.declare.add(cmd)
	addTaskFiles(cmd, &taskFiles)
	cmd.Flags().BoolVar(&f.demo, "demo", false, "run the demo tasks too: "+strings.Join(demoNames(), ", "))
	addForeignFlags(cmd.Flags(), foreignWorker)
	return cmd
}

// work runs a worker until it is stopped by ctx or by signals. Once it receives it says so and calls ready.
func (a *app) work(ctx context.Context, f *workerFlags, broker, backend string, ready func()) error {
	if err := f.validate(); err != nil {
		return err
	}
	log, closeLog, err := f.open(a.stderr)
	if err != nil {
		return err
	}
	defer closeLog()
	config, err := f.config(broker, backend, log)
	if err != nil {
		return err
	}
	config.AcceptContent = f.accept
	a.configureQueues(&config, &f.declare)
	starting, release := a.interruptible(ctx)
	client, closeClient, err := connect(starting, config)
	stopped := starting.Err() != nil
	release()
	if err != nil {
		if stopped {
			fmt.Fprintln(a.stderr, "worker: stopped before it began")
			return nil
		}
		return err
	}
	defer closeClient()
	w, err := worker.New(client, a.mux, f.workerConfig(log))
	if err != nil {
		return usage(err.Error(), "", "")
	}
	if !f.quiet {
		a.banner(f, w, broker, backend)
	}
	if stopped { // the signal came just as the connection was made
		return nil
	}
	return a.supervise(ctx, w, func() {
		a.sayReady(f, w, log)
		ready()
	})
}

// banner tells, as Celery's does, who this is and what it is about to do.
func (a *app) banner(f *workerFlags, w *worker.Worker, broker, backend string) {
	var b strings.Builder
	results := "disabled"
	if backend != "" {
		results = brokerurl.Redact(backend)
	}
	queues := f.queues
	if len(queues) == 0 {
		queues = []string{defaultQueue}
	}
	fmt.Fprintf(&b, "%s  %s  pid %d\n\n", w.Hostname(), readVersion(), os.Getpid())
	fmt.Fprintf(&b, "[config]\n.> transport:   %s\n.> results:     %s\n.> concurrency: %d (goroutines)\n\n",
		brokerurl.Redact(broker), results, f.concurrency)
	b.WriteString("[queues]\n")
	for _, q := range queues {
		b.WriteString(".> " + q + "\n")
	}
	b.WriteString("\n[tasks]\n")
	for _, name := range a.mux.Names() {
		b.WriteString("  . " + name + "\n")
	}
	if len(a.mux.Names()) == 0 {
		b.WriteString("  none; register some in the mux of cli.Main, or try --demo\n")
	}
	fmt.Fprintln(a.stderr, b.String())
}

// sayReady puts the line that scripts wait for on standard error where the worker's own, which is in the log, is not.
func (a *app) sayReady(f *workerFlags, w *worker.Worker, log *slog.Logger) {
	line := w.Hostname() + " ready."
	if f.file != "" || !log.Enabled(context.Background(), slog.LevelInfo) {
		fmt.Fprintln(a.stderr, line)
	}
}
