package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/worker"
)

// workerFlags are the flags of commands that run a worker, but for those that are settings.
type workerFlags struct {
	logFlags
	demo  bool
	quiet bool
	beat  bool
}

func (f *workerFlags) add(cmd *cobra.Command, logLevel string) {
	flags := cmd.Flags()
	flags.SortFlags = false
	addSetting(cmd, "queues", "Q", "`names` of the queues to serve, separated by commas", "worker_queues")
	addSetting(cmd, "exclude-queues", "X", "`names` of queues to leave out", "worker_exclude_queues")
	addSetting(cmd, "concurrency", "c", "`number` of tasks that run at once", "worker_concurrency")
	addSetting(cmd, "autoscale", "", "`MAX,MIN` of the tasks that run at once: it follows the work", "worker_autoscale")
	addSetting(cmd, "hostname", "n", "node `name`; %h host, %n its first part, %d the rest", "worker_hostname")
	flags.StringVarP(&f.level, "loglevel", "l", logLevel, "`level`: DEBUG, INFO, WARNING, ERROR or CRITICAL")
	flags.StringVarP(&f.file, "logfile", "f", "", "`path` of the log (default standard error)")
	flags.StringVar(&f.format, "log-format", "text", "`form` of the log: text or json")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "no banner")
	addSetting(cmd, "prefetch-multiplier", "", "`number` of messages held for each running task, itself included; 0: no limit", "worker_prefetch_multiplier")
	addSetting(cmd, "disable-prefetch", "", "hold only what runs", "worker_disable_prefetch")
	addSetting(cmd, "pool", "P", "`where` tasks run: goroutine or process; Celery's prefork is process", "worker_pool")
	addSetting(cmd, "max-tasks-per-child", "", "`number` of tasks after which a child process is replaced", "worker_max_tasks_per_child")
	addSetting(cmd, "max-memory-per-child", "", "memory in `KiB` with which a child process is replaced after its task", "worker_max_memory_per_child")
	addSetting(cmd, "time-limit", "", "hard time limit of tasks that have none", "task_time_limit")
	addSetting(cmd, "soft-time-limit", "", "soft time limit of tasks that have none", "task_soft_time_limit")
	addSetting(cmd, "accept-content", "", "`names` of serializers to decode: json, msgpack, yaml, pickle", "accept_content")
	addSetting(cmd, "result-extended", "", "store name, arguments, worker and queue with each result", "result_extended")
	addSetting(cmd, "track-started", "", "store the state STARTED when a task begins", "task_track_started")
	addSetting(cmd, "unknown-task", "", "`policy` for messages of unknown tasks: fail, reject or requeue", "worker_unknown_task")
	addSetting(cmd, "max-deliveries", "", "`number` of runs of a message whose workers went away before it is quarantined", "worker_max_deliveries")
	addSetting(cmd, "task-events", "E", "send the events of tasks, for Flower and celery events", "worker_send_task_events")
	addSetting(cmd, "events", "", "", "worker_send_task_events") // Celery's other name
	_ = flags.MarkHidden("events")
	addSetting(cmd, "heartbeat-interval", "", "how often monitors are told that the worker is alive", "worker_heartbeat_interval")
	addSetting(cmd, "without-heartbeat", "", "do not tell them", "worker_without_heartbeat")
	addSetting(cmd, "without-gossip", "", "do not hear other workers, nor take part in elections", "worker_without_gossip")
	addSetting(cmd, "without-mingle", "", "do not ask other workers what is revoked", "worker_without_mingle")
	addSetting(cmd, "statedb", "S", "`path` of the file that keeps what is revoked over a restart", "worker_state_db")
	addSetting(cmd, "stop-timeout", "", "how long a warm stop waits for running tasks", "worker_stop_timeout")
	addSetting(cmd, "soft-stop-timeout", "", "how long running tasks may go on when a cold stop is asked for", "worker_soft_shutdown_timeout")
	addSetting(cmd, "health-addr", "", "`address`, or port of the loopback interface, that answers /healthz, /readyz and /metrics", "worker_health_addr")
	addBeatFlags(cmd, "")
	addSetting(cmd, "schedule-filename", "s", "`path` of the file in which the scheduler local keeps what ran last", "beat_schedule_filename")
	addSetting(cmd, "schedule", "", "", "beat_schedule_filename") // Celery's other name
	_ = flags.MarkHidden("schedule")
	addBrokerFlags(cmd)
	addBackendFlags(cmd)
}

// servedQueues are the queues of a worker that is told no others.
func (a *app) servedQueues() []string {
	if queues := a.settings.Worker().Queues; len(queues) > 0 {
		return queues
	}
	c := a.settings.Client()
	if len(c.Queues) == 0 {
		return []string{firstOf(c.Queue, "celery")}
	}
	names := make([]string, len(c.Queues))
	for i, q := range c.Queues {
		names[i] = q.Name
	}
	return names
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

SIGTERM or SIGINT (Ctrl-C) stops it warm: it receives nothing more, gives back what it has not begun, and ends what
runs. A SIGINT or SIGQUIT after that stops it cold: running tasks are cancelled and given back. More SIGTERM change
nothing. SIGQUIT stops it cold from the start, as does SIGTERM with REMAP_SIGTERM=SIGQUIT in the environment. A soft
stop timeout lets running tasks go on for so long before they are cancelled; one more SIGINT or SIGQUIT cuts it short.
After a cold stop has begun, another one ends the process at once; what it held returns to the queues when its lease
ends. SIGHUP stops it warm and starts the same command again, unless it runs on a terminal. SIGUSR1 writes the stacks of
all goroutines into the log.

With --beat a beat runs in the same process and ends as the worker begins to stop; see the command beat.

Settings may follow behind "--", as with celery: -- task.default_rate_limit=5/m _prefetch_multiplier=2.

Exit codes: 0 stopped warm or by SIGQUIT, 1 stopped cold or could not begin, 2 wrong usage, 70 stopped by itself because
too many tasks go on running after they were given up: start it again.`,
		Example: `  gelery --broker redis://localhost:6379/0 --result-backend redis://localhost:6379/1 worker --queues math,mail --concurrency 100
  gelery worker --demo --loglevel INFO`,
		Args: onlyExtras,
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
	addQueueFlags(cmd)
	addTaskFiles(cmd, &taskFiles)
	cmd.Flags().BoolVarP(&f.beat, "beat", "B", false, "run a beat in this process too")
	cmd.Flags().BoolVar(&f.demo, "demo", false, "run the demo tasks too: "+strings.Join(demoNames(), ", "))
	addForeignFlags(cmd.Flags(), foreignWorker)
	return cmd
}

// work runs a worker until it is stopped by ctx or by signals. Once it receives it says so and calls ready.
func (a *app) work(ctx context.Context, f *workerFlags, broker, backend string, ready func()) error {
	log, closeLog, err := f.open(a.stderr)
	if err != nil {
		return err
	}
	defer closeLog()
	more, forget := a.moreSignals()
	defer forget()
	if without := a.settings.Ignored(); len(without) > 0 && !worker.IsChild() {
		log.Info("settings without an effect here", "settings", strings.Join(without, "; "))
	}
	if unmet := a.settings.Unmet(); len(unmet) > 0 && !worker.IsChild() {
		log.Warn("settings that ask for what is not done here", "settings", strings.Join(unmet, "; "))
	}
	config := a.config(broker, backend, log)
	workerConfig := a.settings.Worker()
	workerConfig.Logger = log
	if workerConfig.HealthAddr != "" && !worker.IsChild() { // also while the broker is waited for
		if workerConfig.Health, err = worker.ListenHealth(ctx, workerConfig.HealthAddr); err != nil {
			return usage(a.settings.Named(err).Error(), "", "")
		}
		defer func() { _ = workerConfig.Health.Close() }()
	}
	starting, release := a.beforehand(ctx, more, log)
	client, closeClient, err := connect(starting, config)
	var beat *openedBeat
	if err == nil && f.beat && !worker.IsChild() {
		if beat, err = a.openBeat(starting, broker, log); err != nil {
			closeClient()
		}
	}
	stopped := release()
	if err != nil {
		if stopped {
			fmt.Fprintln(a.stderr, "worker: stopped before it began")
			return nil
		}
		return err
	}
	defer closeClient()
	if beat != nil {
		beat.client = client
		defer beat.close()
	}
	w, err := worker.New(client, a.mux, workerConfig)
	if err != nil {
		return usage(a.settings.Named(err).Error(), "", "")
	}
	if !f.quiet && !worker.IsChild() {
		a.banner(w, broker, backend)
	}
	if stopped { // the signal came just as the connection was made
		return nil
	}
	return a.supervise(ctx, w, beat, more, log, func() {
		a.sayReady(f, w, log)
		ready()
	})
}

// banner tells, as Celery's does, who this is and what it is about to do.
func (a *app) banner(w *worker.Worker, broker, backend string) {
	var b strings.Builder
	results := "disabled"
	if backend != "" {
		results = brokerurl.Redact(backend)
	}
	config := w.Config() // with its defaults
	concurrency := strconv.Itoa(config.Concurrency)
	if config.Autoscale.Max > 0 {
		concurrency = fmt.Sprintf("{min=%d, max=%d}", config.Autoscale.Min, config.Autoscale.Max)
	}
	fmt.Fprintf(&b, "%s  %s  pid %d\n\n", w.Hostname(), readVersion(), os.Getpid())
	fmt.Fprintf(&b, "[config]\n.> transport:   %s\n.> results:     %s\n.> concurrency: %s (%s)\n\n",
		brokerurl.Redact(broker), results, concurrency, config.Pool)
	b.WriteString("[queues]\n")
	for _, q := range config.Queues {
		if !slices.Contains(config.ExcludeQueues, q) {
			b.WriteString(".> " + q + "\n")
		}
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
