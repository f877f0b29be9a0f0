package worker

import (
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"time"

	"github.com/gelery/gelery/internal/healthserver"
	"github.com/gelery/gelery/task"
)

// Config is what a worker may be told beside the client's configuration. The zero value of a field means its default;
// each names the Celery setting or flag it stands for.
type Config struct {
	// Queues are what the worker receives from, in the order they are served: names that mean what they mean to the
	// client, see [task.Client.Queue]. Default, as in Celery: all of the client's Queues, or its default queue if there
	// are none. celery worker -Q.
	Queues []string
	// ExcludeQueues are left out of Queues. celery worker -X.
	ExcludeQueues []string
	// Direct serves one more queue, this node's own: "<node name>.dq2", bound to the exchange C.dq2. Default false.
	// worker_direct.
	Direct bool
	// Concurrency is how many tasks run at once. With Autoscale that decides. Default: the number of CPUs.
	// worker_concurrency, -c.
	Concurrency int
	// Autoscale lets the number of tasks that run at once follow the work. Default: it does not. worker --autoscale.
	Autoscale Autoscale
	// PrefetchMultiplier times Concurrency is how many messages are held, those running included: 1 takes only what
	// can run at once, more hides the round trip, UnlimitedPrefetch is Celery's 0. Tasks that wait for their eta are not
	// counted. With Autoscale it counts times Max. Default 4. worker_prefetch_multiplier.
	PrefetchMultiplier int
	// DisablePrefetch holds only what runs, whatever PrefetchMultiplier says. RabbitMQ hands out so many of each queue.
	// Default false. worker_disable_prefetch, --disable-prefetch.
	DisablePrefetch bool
	// Hostname is the worker's node name; %h is the host's full name, %n its part before the first dot, %d the rest.
	// Default "celery@%h". celery worker -n.
	Hostname string
	// TrackStarted stores STARTED when a task begins, for every task. Default false. task_track_started.
	TrackStarted bool
	// ResultExtended stores name, arguments, worker, retries and queue with each result. Default false.
	// result_extended.
	ResultExtended bool
	// ChordRetryInterval is how long celery.chord_unlock, which watches chords where the result backend counts no parts, waits between
	// two looks, unless its message says otherwise. Default 1 s. result_chord_retry_interval.
	ChordRetryInterval time.Duration
	// ChordJoinTimeout is how long it may take to read the results of up to 500 parts at such a look; what takes longer is tried
	// again at the next one, where Celery fails the chord. Default 3 s. result_chord_join_timeout.
	ChordJoinTimeout time.Duration
	// ChordSizeTimeout is how long a chord may have no size, on backends that count parts, after one of its parts has come back to this
	// worker: then its body has FAILURE. Celery stores the size with the last part, so it must be longer than the sending of a chord
	// takes. Default 5 minutes. Celery's chords wait for ever.
	ChordSizeTimeout time.Duration
	// StopTimeout is how long a warm stop waits for running tasks before it turns cold. Default: for ever.
	StopTimeout time.Duration
	// SoftStopTimeout is how long running tasks may go on when the worker is told to stop cold, before their contexts are
	// cancelled. It ends when they have ended. Default 0: not at all. worker_soft_shutdown_timeout.
	SoftStopTimeout time.Duration
	// TimeLimit is the hard limit of runs that have none of their own: FAILURE with TimeLimitExceeded, and what still runs
	// counts no more. A goroutine cannot be killed, so its slot stays taken until the task returns. Default: none.
	// task_time_limit, --time-limit.
	TimeLimit time.Duration
	// SoftTimeLimit is the time after which the context of a run that has no limit of its own is done, with the cause
	// task.ErrSoftTimeLimit. Default: none. task_soft_time_limit, --soft-time-limit.
	SoftTimeLimit time.Duration
	// MaxAbandoned is how many runs may go on after they were given up (at their hard time limit, or terminated) before the
	// worker stops receiving, ends what runs, and Run returns ErrAbandoned. Runs that end within 2 s are not counted. It
	// stops as well when none of its slots is left. Default: half of the slots, at least 1. Negative: it never stops
	// for that.
	MaxAbandoned int
	// DefaultRateLimit is how often runs of a task that has no limit of its own may begin, as [task.ParseRate] reads it.
	// Default: no limit. task_default_rate_limit.
	DefaultRateLimit string
	// DisableRateLimits lets all tasks run as often as they can, also those that have a limit of their own. What is in
	// Limits still holds. Default false. worker_disable_rate_limits.
	DisableRateLimits bool
	// AckEarly acknowledges the messages of tasks before they run, unless a task says otherwise. Default false: they are
	// acknowledged after the run, which is not Celery's default. task_acks_late=False.
	AckEarly bool
	// AckOnFailure and AckOnTimeout say whether the message of a run that has failed, or passed a time limit, is
	// acknowledged; with false it is rejected, and dead-lettered where the broker does that. They are for tasks
	// acknowledged late. Default true. task_acks_on_failure_or_timeout; task_acks_on_failure, task_acks_on_timeout.
	AckOnFailure, AckOnTimeout *bool
	// StoreErrorsEvenIfIgnored stores FAILURE, RETRY and REVOKED of tasks whose results are ignored. Default false.
	// task_store_errors_even_if_ignored.
	StoreErrorsEvenIfIgnored bool
	// MaxDeliveries is how often work on a message may begin after it had been handed out before, which means that the
	// worker that had it went away. When there have been so many, the message is quarantined and its task has failed, with
	// WorkerLostError: it may be what ends the workers. Default 5; negative: no limit. Celery has none.
	MaxDeliveries int
	// Deduplicate looks the result of a message up that was handed out before, and does not run its task again if that is
	// SUCCESS. It needs a result backend that keeps results. Default false. worker_deduplicate_successful_tasks.
	Deduplicate bool
	// UnknownTask is what becomes of the message of a task that is not registered: "fail" puts it in quarantine, "reject"
	// drops or dead-letters it, as Celery does, both with a FAILURE NotRegistered; "requeue" hands it back to its queue
	// after a while, from 0.1 s growing to 30 s, for workers that know it, and at last fails it. Default "fail".
	UnknownTask string
	// UnknownTaskHops is how often a message is handed back by UnknownTask "requeue", all workers together. Default 100,
	// which takes three quarters of an hour; negative: no limit.
	UnknownTaskHops int
	// Pool is where tasks run: "goroutine", in this process, or "process", in child processes, one task at a time each.
	// A child is the same program, started with the same arguments; see IsChild. Celery's words are understood: prefork
	// is process; threads, gevent and eventlet, which run many tasks in one process, are goroutine. Default "goroutine".
	// worker_pool, -P.
	Pool string
	// MaxTasksPerChild is how many tasks a child process runs before it is replaced. Default: no bound.
	// worker_max_tasks_per_child, --max-tasks-per-child.
	MaxTasksPerChild int
	// MaxMemoryPerChild is how many bytes a child process may have had resident before it is replaced, after the task in
	// which it passed them. Default: no bound. worker_max_memory_per_child, --max-memory-per-child, which count KiB.
	MaxMemoryPerChild int64
	// MemoryLimitPerChild is how many bytes a child process may have resident: one with more is killed, and its task is a
	// FAILURE with WorkerLostError. It is looked at every 100 ms, on Linux only. Default: no limit.
	MemoryLimitPerChild int64
	// Limits are limits that this worker shares with all others which are told of them. Default: none.
	Limits []Limit
	// LimitsURL is the Redis where Limits are kept; default: the broker if that is Redis, else the result backend. LimitsOptions
	// are its connection's options, under kombu's names.
	LimitsURL     string
	LimitsOptions map[string]any
	// DisableRemoteControl makes the worker deaf to remote control: to `celery control` and `celery inspect`, Flower, and
	// Client.Revoke, of which it learns then on Redis only, within seconds. Default false. worker_enable_remote_control.
	DisableRemoteControl bool
	// DisabledCommands are the commands of remote control that are answered with an error and not carried out, by their
	// names: "shutdown", "pool_shrink". Without "terminate", revoke does not terminate either. Default: none.
	DisabledCommands []string
	// EnabledCommands are the only commands that are carried out of those that change something: "revoke", "rate_limit". What
	// only asks, as ping and stats, is answered nevertheless, and what workers tell each other is heard. Default: all of them.
	// worker_enabled_commands.
	EnabledCommands []string
	// TaskEvents sends the events of tasks, which monitors such as Flower and `celery events` show, from the start; remote
	// control can turn them on and off. Default false. worker_send_task_events, -E.
	TaskEvents bool
	// HeartbeatInterval is how often the worker tells that it is alive, in the event worker-heartbeat. Monitors take it for
	// dead after twice that time. Default 2 s. celery worker --heartbeat-interval.
	HeartbeatInterval time.Duration
	// DisableHeartbeat sends no heartbeats, nor worker-online and worker-offline: monitors do not see the worker. Default
	// false. celery worker --without-heartbeat.
	DisableHeartbeat bool
	// DisableGossip leaves unheard what other workers tell of themselves: no part is taken in elections, and the logical clock
	// follows remote control alone. It saves a subscription. Default false. celery worker --without-gossip.
	DisableGossip bool
	// DisableMingle asks no other worker at the start what is revoked, and tells none. Without remote control none is asked in any
	// case. Default false. celery worker --without-mingle.
	DisableMingle bool
	// RevokesMax is how many revoked ids the worker keeps in mind, and as many stamps. Default: the environment's
	// CELERY_WORKER_REVOKES_MAX, else 50,000.
	RevokesMax int
	// RevokeExpires is how long it keeps one; a task that was revoked before and is due later runs. Default: the environment's
	// CELERY_WORKER_REVOKE_EXPIRES, in seconds, else a week.
	RevokeExpires time.Duration
	// StateFile is where the worker writes what is revoked, within a second, to know it after a restart. On Redis the broker
	// keeps it in any case. JSON, of Gelery's own: a Python worker's file is refused. Default: none. worker_state_db,
	// --statedb.
	StateFile string
	// HealthAddr is where the worker answers how it is: GET /healthz with 200 as long as nothing is stuck, /readyz with 200
	// while it receives and the broker answers, else 503 and the reason, /metrics with what it has done, for Prometheus, under
	// celery-exporter's names. A port alone, "8080", is one of the loopback interface. Default: nowhere. --health-addr.
	HealthAddr string
	// Health is a server of ListenHealth, in place of HealthAddr. The worker takes it over and closes it. Default: none.
	Health *HealthServer
	// Logger receives the worker's log. Default: the client's.
	Logger *slog.Logger
}

// withDefaults validates c against the client's configuration and fills in the defaults.
func (c Config) withDefaults(client task.Config) (Config, error) {
	if len(c.Queues) == 0 {
		c.Queues = defaultQueues(client)
	}
	for i, q := range c.Queues {
		if q == "" {
			return c, fmt.Errorf("worker config: Queues[%d]: the name is empty", i)
		}
	}
	if c.Concurrency == 0 {
		c.Concurrency = runtime.NumCPU()
	}
	if c.PrefetchMultiplier == 0 {
		c.PrefetchMultiplier = 4
	}
	if c.UnknownTask == "" {
		c.UnknownTask = unknownFail
	}
	if c.UnknownTaskHops == 0 {
		c.UnknownTaskHops = defaultHops
	}
	if c.HeartbeatInterval == 0 {
		c.HeartbeatInterval = 2 * time.Second
	}
	if c.MaxDeliveries == 0 {
		c.MaxDeliveries = defaultMaxDeliveries
	}
	var err error
	if c.Autoscale, err = c.Autoscale.withDefaults(); err != nil {
		return c, err
	}
	if c.Autoscale.Max > 0 {
		c.Concurrency = c.Autoscale.Min
	}
	switch {
	case c.Concurrency < 0 || c.Concurrency > maxConcurrency:
		return c, fmt.Errorf("worker config: Concurrency: %d is not from 1 to %d", c.Concurrency, maxConcurrency)
	case c.PrefetchMultiplier < UnlimitedPrefetch || c.PrefetchMultiplier > maxPrefetch:
		return c, fmt.Errorf("worker config: PrefetchMultiplier: %d is neither from 1 to %d nor UnlimitedPrefetch", c.PrefetchMultiplier, maxPrefetch)
	case c.TimeLimit < 0 || c.SoftTimeLimit < 0:
		return c, fmt.Errorf("worker config: TimeLimit %v, SoftTimeLimit %v: a limit is not negative", c.TimeLimit, c.SoftTimeLimit)
	case c.TimeLimit > 0 && c.SoftTimeLimit > c.TimeLimit:
		return c, fmt.Errorf("worker config: SoftTimeLimit: %v is longer than TimeLimit, %v", c.SoftTimeLimit, c.TimeLimit)
	case c.UnknownTask != unknownFail && c.UnknownTask != unknownReject && c.UnknownTask != unknownRequeue:
		return c, fmt.Errorf("worker config: UnknownTask: %q is not fail, reject or requeue", c.UnknownTask)
	case c.SoftStopTimeout < 0:
		return c, fmt.Errorf("worker config: SoftStopTimeout: %v is negative", c.SoftStopTimeout)
	case c.HeartbeatInterval < minHeartbeat:
		return c, fmt.Errorf("worker config: HeartbeatInterval: %v is less than %v", c.HeartbeatInterval, minHeartbeat)
	case c.StopTimeout < 0:
		return c, fmt.Errorf("worker config: StopTimeout: %v is negative", c.StopTimeout)
	}
	if err := c.checkLimits(); err != nil {
		return c, err
	}
	if err := c.chordDefaults(); err != nil {
		return c, err
	}
	if c.DisablePrefetch {
		c.PrefetchMultiplier = 1
	}
	if err := c.checkPool(); err != nil {
		return c, err
	}
	if c.HealthAddr, err = healthserver.Address(c.HealthAddr); err != nil {
		return c, fmt.Errorf("worker config: HealthAddr: %w", err)
	}
	if err = c.revokeDefaults(); err != nil {
		return c, err
	}
	if c.Hostname, err = NodeName(c.Hostname); err != nil {
		return c, err
	}
	if c.Logger == nil {
		c.Logger = client.Logger
	}
	return c, nil
}

// Check finds what New would refuse of c, without connections: the client has none, and its configuration names the broker and
// the result backend, empty for none, by their URLs.
func (c Config) Check(client *task.Client) error {
	known := client.Config()
	c, err := c.withDefaults(known)
	if err != nil {
		return err
	}
	if err := c.checkBackend(known.Backend != "" && !strings.HasPrefix(known.Backend, "rpc:")); err != nil {
		return err
	}
	if len(c.Limits) > 0 {
		if _, _, err := c.limitsRedis(known); err != nil {
			return err
		}
	}
	_, err = c.queues(client)
	return err
}

const (
	maxConcurrency = 100_000
	maxPrefetch    = 1_000

	minHeartbeat = 100 * time.Millisecond

	defaultMaxDeliveries = 5
	defaultHops          = 100
)

// UnlimitedPrefetch as PrefetchMultiplier stands for Celery's 0: the worker holds what it gets, up to 10,000 messages or
// four for each slot, whichever is more.
const UnlimitedPrefetch = -1

// window is how many messages a worker with so many slots holds, and from how many on a call for more is worth it.
func (c *Config) window(slots int) (size, worthwhile int) {
	if c.PrefetchMultiplier == UnlimitedPrefetch {
		size = max(10_000, 4*slots)
	} else {
		size = c.PrefetchMultiplier * slots
	}
	return size, max(1, (size-slots)/3)
}

// defaultQueues are what a worker receives from that is told no queues.
func defaultQueues(client task.Config) []string {
	if len(client.Queues) == 0 {
		return []string{client.Queue}
	}
	names := make([]string, len(client.Queues))
	for i, q := range client.Queues {
		names[i] = q.Name
	}
	return names
}
