package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/internal/healthserver"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/task"
)

func init() { commands = append(commands, beatCommand) }

// Option is something that a program gives to its command line beside its tasks.
type Option func(*app)

// Schedule are periodic tasks of the program: beat, worker -B and dev send them beside those of the settings, of files and of the
// store. They can be changed in the program only.
func Schedule(entries ...*scheduler.Entry) Option {
	return func(a *app) { a.entries = append(a.entries, entries...) }
}

type beatFlags struct {
	logFlags
	quiet   bool
	pidFile string
}

// addBeatFlags adds what a beat has where it runs; short is for --schedule.
func addBeatFlags(cmd *cobra.Command, scheduler string) {
	addSetting(cmd, "scheduler", scheduler, "`where` the schedule is kept: local, redbeat, django", "beat_scheduler")
}

func beatCommand(a *app) *cobra.Command {
	f := &beatFlags{}
	cmd := &cobra.Command{
		Use:     "beat",
		GroupID: groupRun,
		Short:   "Send periodic tasks when they are due",
		Long: `Send periodic tasks when they are due

The tasks are those of the setting beat_schedule, of the files that beat_files names, of the program, and, with the schedulers
redbeat and django, those in Redis or in Django's database. See also the command schedule.

Any number of beats may run, on any machines: of those that share a store one leads, and another takes over within ten seconds of
its end. With the scheduler local that holds for those that share a file on one machine. What is due is marked in the store before
it is sent, and sent again by whoever leads next if nobody says that it was.

A broker or a store that is not there yet is waited for. SIGTERM or SIGINT (Ctrl-C) gives the lead back and ends it.

Exit codes: 0 stopped, 1 failed, 2 wrong usage, 69 store unreachable, 73 the pidfile is taken.`,
		Example: `  gelery --config gelery.yaml beat --loglevel INFO
  gelery --broker redis://localhost:6379/0 beat --scheduler redbeat --health-addr 8080`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, release := a.interruptible(cmd.Context())
			defer release()
			return asFailure(cmd.Context(), a.beat(ctx, f))
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	addBeatFlags(cmd, "S")
	addSetting(cmd, "schedule", "s", "`path` of the file in which the scheduler local keeps what ran last", "beat_schedule_filename")
	addSetting(cmd, "max-interval", "", "how often the schedule is looked at at least", "beat_max_loop_interval")
	flags.StringVar(&f.pidFile, "pidfile", "", "`path` of a file that holds the process's number while it runs")
	flags.StringVarP(&f.level, "loglevel", "l", "WARNING", "`level`: DEBUG, INFO, WARNING, ERROR or CRITICAL")
	flags.StringVarP(&f.file, "logfile", "f", "", "`path` of the log (default standard error)")
	flags.StringVar(&f.format, "log-format", "text", "`form` of the log: text or json")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "no banner")
	addSetting(cmd, "health-addr", "", "`address`, or port of the loopback interface, that answers /healthz, /readyz and /metrics", "beat_health_addr")
	addBrokerFlags(cmd)
	addForeignFlags(flags, foreignBeat)
	return cmd
}

// beat sends until ctx is done. That ends it well, whatever it was about.
func (a *app) beat(ctx context.Context, f *beatFlags) error {
	log, closeLog, err := f.open(a.stderr)
	if err != nil {
		return err
	}
	defer closeLog()
	removePIDFile, err := holdPIDFile(f.pidFile)
	if err != nil {
		return err
	}
	defer removePIDFile()
	broker := a.brokerURL("WRITE")
	config := a.config(broker, a.chordBackend(), log)
	b, err := a.openBeat(ctx, broker, log)
	if err != nil {
		return stopped(ctx, err)
	}
	defer b.close()
	if !f.quiet {
		b.banner(f.file, f.level, broker)
	}
	client, closeClient, err := connectLazily(ctx, config, true)
	if err != nil {
		return stopped(ctx, err)
	}
	defer closeClient()
	b.client = client
	return b.run(ctx)
}

// stopped is nothing if the command was told to stop.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// chordBackend is the result backend for a client that only sends: of a chord it is told the size. Results over rpc are the sender's.
func (a *app) chordBackend() string {
	if url := a.backendURL(); !strings.HasPrefix(url, "rpc:") {
		return url
	}
	return ""
}

// openedBeat is a beat with its store and its health server, before it has a client.
type openedBeat struct {
	*app
	store  *beatStore
	health *healthserver.Server // nil: none
	client *task.Client         // set before it runs
	log    *slog.Logger
}

// openBeat opens the store and answers for the beat's health from now on. Close must be called.
func (a *app) openBeat(ctx context.Context, broker string, log *slog.Logger) (_ *openedBeat, err error) {
	b := &openedBeat{app: a, log: log}
	config, _ := a.settings.Beat() // its mistakes are told when the store is opened
	if config.HealthAddr != "" {
		if b.health, err = healthserver.Listen(ctx, config.HealthAddr); err != nil {
			return nil, usage("beat_health_addr: "+err.Error(), "", "name another address with --health-addr or beat_health_addr")
		}
		log.Info("beat: health is told", "address", b.health.Addr())
	}
	if b.store, err = a.openBeatStore(ctx, broker, true, log); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *openedBeat) close() {
	if b.health != nil {
		_ = b.health.Close()
	}
	if b.store != nil {
		if err := b.store.Close(); err != nil {
			b.log.Warn("beat: the store does not close well", "error", err)
		}
	}
}

// banner tells, as Celery's does, who this is and what it is about to do.
func (b *openedBeat) banner(file, level, broker string) {
	fmt.Fprintf(b.stderr, `%s beat %s is starting, pid %d.
LocalTime -> %s
Configuration ->
    . broker -> %s
    . scheduler -> %s
    . db -> %s
    . timezone -> %s
    . logfile -> %s@%%%s
    . maxinterval -> %v

`, b.name, readVersion(), os.Getpid(), time.Now().Format(time.DateTime), brokerurl.Redact(broker), b.store.config.Scheduler, b.store.at,
		b.store.config.Zone, firstOf(file, "[stderr]"), strings.ToUpper(level), b.store.maxInterval())
}

// maxInterval is the loop's, with its default.
func (s *beatStore) maxInterval() time.Duration {
	if s.config.Loop.MaxInterval == 0 {
		return scheduler.DefaultMaxInterval
	}
	return s.config.Loop.MaxInterval
}

// run sends by its client until ctx is done, and gives the lead back.
func (b *openedBeat) run(ctx context.Context) error {
	loop := b.store.config.Loop
	loop.Logger = b.log
	beat, err := scheduler.New(b.client, b.store.Store, loop)
	if err != nil {
		return usage(err.Error(), "", "")
	}
	if b.health != nil {
		b.health.Tell(beat)
	}
	return beat.Run(ctx)
}
