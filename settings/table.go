package settings

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gelery/gelery/protocol/compression"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
	"github.com/gelery/gelery/worker"
)

var (
	queueTypes    = []string{"classic", "quorum"}
	exchangeTypes = []string{"direct", "topic", "fanout"}
)

// The maps of options that settings add to.
func transportOptions(c *configs) *map[string]any { return &c.client.TransportOptions }
func amqpOptions(c *configs) *map[string]any      { return &c.amqp }
func redisOptions(c *configs) *map[string]any     { return &c.redis }
func redisBackend(c *configs) *map[string]any     { return &c.redisBackend }
func databaseBackend(c *configs) *map[string]any  { return &c.databaseBackend }

// both applies a setting twice.
func both(first, second func(*configs, any)) func(*configs, any) {
	return func(c *configs, v any) {
		first(c, v)
		second(c, v)
	}
}

// table is every setting with a meaning here.
var table = []Setting{
	// Broker.
	{Name: "broker_url", Type: URL, Default: "redis://localhost:6379/0", Meaning: "the broker; the default is the command line's, code must name one",
		use: to(func(c *configs) *string { return &c.client.Broker })},
	{Name: "broker_read_url", Type: URL, Meaning: "the broker for workers", Default: "broker_url"},
	{Name: "broker_write_url", Type: URL, Meaning: "the broker for producers", Default: "broker_url"},
	{Name: "broker_transport_options", Type: Options, Meaning: "options of the broker's driver, under kombu's names",
		use: func(c *configs, v any) {
			for name, value := range v.(map[string]any) {
				toOption(transportOptions, name)(c, value)
			}
		}},
	{Name: "broker_use_ssl", Type: Any, Default: "false", Meaning: "TLS to the broker: true, or a map of Python's ssl_ settings",
		use: both(toOption(amqpOptions, "ssl"), toOption(redisOptions, "ssl"))},
	{Name: "broker_connection_timeout", Type: Seconds, Default: "4", Meaning: "how long one attempt to connect may take", check: notZero,
		use: both(toOption(amqpOptions, "connect_timeout"), toOption(redisOptions, "socket_connect_timeout"))},
	{Name: "broker_heartbeat", Type: Seconds, Default: "10", Meaning: "AMQP heartbeats; RabbitMQ may choose shorter ones", check: notZero,
		use: toOption(amqpOptions, "heartbeat")},
	{Name: "broker_login_method", Type: Text, Default: "PLAIN", Meaning: "how to log in to RabbitMQ", choices: []string{"PLAIN", "EXTERNAL"},
		use: toOption(amqpOptions, "login_method")},
	{Name: "broker_failover_strategy", Type: Text, Default: "round-robin", Meaning: "which of several RabbitMQ nodes is tried next",
		choices: []string{"round-robin", "shuffle"}, use: toOption(amqpOptions, "failover_strategy")},
	{Name: "broker_native_delayed_delivery_queue_type", Type: Text, Default: "quorum", Meaning: "type of the queues in which RabbitMQ delays tasks",
		choices: []string{"quorum", "classic"}, use: toOption(amqpOptions, "native_delayed_delivery_queue_type")},

	// Tasks.
	{Name: "task_default_queue", Type: Text, Default: "celery", Meaning: "where tasks go that nothing sends elsewhere", check: notEmpty,
		use: to(func(c *configs) *string { return &c.client.Queue })},
	{Name: "task_default_queue_type", Type: Text, Default: "classic", Meaning: "type of the default queue on RabbitMQ", choices: queueTypes,
		use: to(func(c *configs) *string { return &c.client.QueueType })},
	{Name: "task_default_exchange", Type: Text, Default: "task_default_queue", Meaning: "exchange of queues that name none",
		use: to(func(c *configs) *string { return &c.client.Exchange })},
	{Name: "task_default_exchange_type", Type: Text, Default: "direct", Meaning: "type of that exchange", choices: exchangeTypes,
		use: to(func(c *configs) *string { return &c.client.ExchangeType })},
	{Name: "task_default_routing_key", Type: Text, Default: "task_default_queue", Meaning: "binding key of queues that have none",
		use: to(func(c *configs) *string { return &c.client.RoutingKey })},
	{Name: "task_queues", Type: Queues, Meaning: "queues that are more than a name",
		use: to(func(c *configs) *[]transport.Queue { return &c.client.Queues })},
	{Name: "task_create_missing_queues", Type: Boolean, Default: "true", Meaning: "queues that are not in task_queues may be used",
		use: toPointer(func(c *configs) **bool { return &c.client.CreateMissingQueues })},
	{Name: "task_create_missing_queue_type", Type: Text, Default: "classic", Meaning: "type of such a queue on RabbitMQ", choices: queueTypes,
		use: to(func(c *configs) *string { return &c.client.CreateMissingQueueType })},
	{Name: "task_create_missing_queue_exchange_type", Type: Text, Default: "direct", Meaning: "type of its exchange", choices: exchangeTypes,
		use: to(func(c *configs) *string { return &c.client.CreateMissingQueueExchangeType })},
	{Name: "task_queue_max_priority", Type: Integer, max: 255, Meaning: "x-max-priority of the queues on RabbitMQ",
		use: to(func(c *configs) *int { return &c.client.QueueMaxPriority })},
	{Name: "task_inherit_parent_priority", Type: Boolean, Default: "false", Meaning: "what a task sends, and what follows it, has the priority of its message",
		use: to(func(c *configs) *bool { return &c.client.InheritParentPriority })},
	{Name: "task_allow_error_cb_on_chord_header", Type: Boolean, Default: "false", Meaning: "error callbacks of a chord are called for parts of its header too",
		use: to(func(c *configs) *bool { return &c.client.HeaderErrbacks })},
	{Name: "task_routes", Type: Routes, Meaning: "queues and options by task name or pattern",
		use: to(func(c *configs) *[]task.Route { return &c.client.Routes })},
	{Name: "task_serializer", Type: Text, Default: "json", Meaning: "serializer of task bodies", check: writes,
		use: to(func(c *configs) *string { return &c.client.Serializer })},
	{Name: "task_compression", Type: Text, Meaning: "compression of task bodies", check: compresses,
		use: to(func(c *configs) *string { return &c.client.Compression })},
	{Name: "task_protocol", Type: Integer, Default: "2", Meaning: "version of the task message", min: 1, max: 2,
		use: to(func(c *configs) *int { return &c.client.Protocol })},
	{Name: "task_publish_timeout", Own: true, Type: Seconds, Default: "10", Meaning: "how long a call tries to reach the broker; in place of task_publish_retry_policy",
		check: notZero, use: to(func(c *configs) *time.Duration { return &c.client.PublishTimeout })},
	{Name: "accept_content", Type: Names, Default: "[json]", Meaning: "serializers that a worker decodes", check: accepts,
		use: to(func(c *configs) *[]string { return &c.client.AcceptContent })},
	{Name: "task_ignore_result", Type: Boolean, Default: "false", Meaning: "throw results away unless a task or a call says otherwise",
		use: to(func(c *configs) *bool { return &c.client.IgnoreResult })},
	{Name: "task_track_started", Type: Boolean, Default: "false", Meaning: "store the state STARTED when a task begins",
		use: to(func(c *configs) *bool { return &c.worker.TrackStarted })},
	{Name: "task_time_limit", Type: Seconds, Meaning: "hard time limit of a run", use: to(func(c *configs) *time.Duration { return &c.worker.TimeLimit })},
	{Name: "task_soft_time_limit", Type: Seconds, Meaning: "soft time limit of a run",
		use: to(func(c *configs) *time.Duration { return &c.worker.SoftTimeLimit })},
	{Name: "task_default_rate_limit", Type: Rate, Meaning: "rate limit of tasks that have none", use: to(func(c *configs) *string { return &c.worker.DefaultRateLimit })},
	{Name: "task_acks_late", Type: Boolean, Default: "true", Meaning: "acknowledge after the run; Celery's default is false",
		use: func(c *configs, v any) { c.worker.AckEarly = !v.(bool) }},
	{Name: "task_acks_on_failure_or_timeout", Type: Boolean, Default: "true", Meaning: "acknowledge runs that fail; false rejects them",
		use: both(toPointer(func(c *configs) **bool { return &c.worker.AckOnFailure }), toPointer(func(c *configs) **bool { return &c.worker.AckOnTimeout }))},
	{Name: "task_acks_on_failure", Type: Boolean, Default: "task_acks_on_failure_or_timeout", Meaning: "the same, for errors alone",
		use: toPointer(func(c *configs) **bool { return &c.worker.AckOnFailure })},
	{Name: "task_acks_on_timeout", Type: Boolean, Default: "task_acks_on_failure_or_timeout", Meaning: "the same, for time limits alone",
		use: toPointer(func(c *configs) **bool { return &c.worker.AckOnTimeout })},
	{Name: "task_reject_on_worker_lost", Type: Boolean, Default: "true", Meaning: "a task whose process is lost runs again; refused if false: give the tasks task.RejectOnWorkerLost(false)",
		check: isTrue},
	{Name: "task_store_errors_even_if_ignored", Type: Boolean, Default: "false", Meaning: "store failures of tasks whose results are ignored",
		use: to(func(c *configs) *bool { return &c.worker.StoreErrorsEvenIfIgnored })},
	{Name: "task_always_eager", Type: Boolean, Default: "false", Meaning: "refused: call the function itself in tests", instead: "call the task's function itself, or use the broker memory://"},
	{Name: "task_annotations", Type: Any, Meaning: "refused: a task's options stand where it is defined", instead: "give the options where the task is defined"},
	{Name: "task_default_delivery_mode", Type: Any, Default: "2", Meaning: "refused unless 2: use the option task.Transient", check: persistent},
	{Name: "task_default_priority", Type: Any, Meaning: "refused: give a priority to the task or to its route", instead: "give a priority to the task or to its route"},

	{Name: "event_exchange", Type: Text, Default: "celeryev", Meaning: "exchange of events", check: notEmpty,
		use: to(func(c *configs) *string { return &c.client.EventExchange })},
	{Name: "task_send_sent_event", Type: Boolean, Default: "false", Meaning: "send an event for each task that is sent",
		use: to(func(c *configs) *bool { return &c.client.SendSentEvent })},
	{Name: "task_secret_names", Own: true, Type: Names, Default: strings.Join(value.DefaultSecretNames, ", "),
		Meaning: "what is given under a name that ends so is not shown in argsrepr, events, logs and inspect", use: to(func(c *configs) *[]string { return &c.client.SecretNames })},

	// Results.
	{Name: "result_backend", Type: URL, Meaning: `where results are kept; "disabled" for nowhere`, use: func(c *configs, v any) {
		if c.client.Backend = v.(string); c.client.Backend == "disabled" || strings.HasPrefix(c.client.Backend, "disabled:") {
			c.client.Backend = ""
		}
	}},
	{Name: "result_backend_transport_options", Type: Options, Meaning: "options of the result backend's driver",
		use: to(func(c *configs) *map[string]any { return &c.client.BackendOptions })},
	{Name: "result_expires", Type: Seconds, Default: "86400", Meaning: "how long results are kept; 0 or null: for ever", use: func(c *configs, v any) {
		if c.client.ResultExpires = v.(time.Duration); c.client.ResultExpires == 0 {
			c.client.ResultExpires = -1
		}
	}},
	{Name: "result_serializer", Type: Text, Default: "json", Meaning: "serializer of results", check: writes,
		use: to(func(c *configs) *string { return &c.client.ResultSerializer })},
	{Name: "result_accept_content", Type: Names, Default: "result_serializer", Meaning: "serializers that results are read with", check: accepts,
		use: to(func(c *configs) *[]string { return &c.client.ResultAcceptContent })},
	{Name: "result_compression", Type: Text, Meaning: "refused: results are not compressed", instead: "leave it out"},
	{Name: "result_persistent", Type: Boolean, Default: "false", Meaning: "results on rpc:// survive a restart of the broker",
		use: to(func(c *configs) *bool { return &c.client.ResultPersistent })},
	{Name: "result_chord_retry_interval", Type: Seconds, Default: "1", Meaning: "pause of celery.chord_unlock between two looks", check: notZero,
		use: to(func(c *configs) *time.Duration { return &c.worker.ChordRetryInterval })},
	{Name: "result_chord_join_timeout", Type: Seconds, Default: "3", Meaning: "how long it may read the results of 500 parts", check: notZero,
		use: to(func(c *configs) *time.Duration { return &c.worker.ChordJoinTimeout })},
	{Name: "result_extended", Type: Boolean, Default: "false", Meaning: "store name, arguments, worker and queue with each result",
		use: to(func(c *configs) *bool { return &c.worker.ResultExtended })},
	{Name: "redis_backend_use_ssl", Type: Any, Meaning: "TLS to the result backend", use: toOption(redisBackend, "ssl")},
	{Name: "redis_max_connections", Type: Integer, min: 1, Meaning: "connections to the result backend", use: toOption(redisBackend, "max_connections")},
	{Name: "redis_socket_timeout", Type: Seconds, Default: "120", Meaning: "how long the result backend may take to answer", check: notZero,
		use: toOption(redisBackend, "socket_timeout")},
	{Name: "redis_socket_connect_timeout", Type: Seconds, Meaning: "how long one attempt to connect to it may take", check: notZero,
		use: toOption(redisBackend, "socket_connect_timeout")},
	{Name: "redis_socket_keepalive", Type: Boolean, Default: "false", Meaning: "TCP keepalive to the result backend", use: toOption(redisBackend, "socket_keepalive")},
	{Name: "redis_username", Type: Text, Meaning: "user of the result backend", use: toOption(redisBackend, "username")},
	{Name: "redis_password", Type: Text, Meaning: "password of the result backend", use: toOption(redisBackend, "password")},
	{Name: "redis_host", Type: Any, Meaning: "refused: write it into result_backend", instead: "write it into the URL of result_backend"},
	{Name: "redis_port", Type: Any, Meaning: "refused: write it into result_backend", instead: "write it into the URL of result_backend"},
	{Name: "redis_db", Type: Any, Meaning: "refused: write it into result_backend", instead: "write it into the URL of result_backend"},

	{Name: "database_table_names", Type: Options, Default: "{task: celery_taskmeta, group: celery_tasksetmeta}", Meaning: "names of the tables of a db+ result backend",
		check: ofTables, use: toOption(databaseBackend, "table_names")},
	{Name: "database_table_schemas", Type: Options, Meaning: "schemas of the tables: task, group", check: ofTables, use: toOption(databaseBackend, "table_schemas")},
	{Name: "database_create_tables_at_setup", Type: Boolean, Default: "true", Meaning: "make the tables where they are not there", use: toOption(databaseBackend, "create_tables_at_setup")},
	{Name: "database_engine_options", Type: Options, Default: "{pool_recycle: 3600}", Meaning: "of SQLAlchemy: pool_size, max_overflow and pool_recycle",
		check: engineOptions, use: toOption(databaseBackend, "engine_options")},
	{Name: "database_url", Type: Any, Meaning: "refused: write it into result_backend", instead: "write it into result_backend: db+postgresql://user:password@host/database"},

	// Worker.
	{Name: "worker_queues", Own: true, Type: Names, Default: "task_queues, or the default queue", Meaning: "the queues to serve: celery worker -Q",
		use: to(func(c *configs) *[]string { return &c.worker.Queues })},
	{Name: "worker_exclude_queues", Own: true, Type: Names, Meaning: "queues to leave out: celery worker -X",
		use: to(func(c *configs) *[]string { return &c.worker.ExcludeQueues })},
	{Name: "worker_direct", Type: Boolean, Default: "false", Meaning: "serve a queue of this node's own too",
		use: to(func(c *configs) *bool { return &c.worker.Direct })},
	{Name: "worker_hostname", Own: true, Type: Text, Default: "celery@%h", Meaning: "the node name; %h host, %n its first part, %d the rest: celery worker -n",
		check: nodeName, use: to(func(c *configs) *string { return &c.worker.Hostname })},
	{Name: "worker_concurrency", Type: Integer, Default: "the number of CPUs", max: 100_000, Meaning: "how many tasks run at once",
		use: to(func(c *configs) *int { return &c.worker.Concurrency })},
	{Name: "worker_autoscale", Own: true, Type: Text, Meaning: "MAX,MIN: how many tasks run at once follows the work: celery worker --autoscale",
		check: func(v any) error { _, err := parseAutoscale(v.(string)); return err },
		use:   func(c *configs, v any) { c.worker.Autoscale, _ = parseAutoscale(v.(string)) }},
	{Name: "worker_prefetch_multiplier", Type: Integer, Default: "4", max: 1000, Meaning: "messages held for each task that runs, itself included; 0: no limit",
		use: func(c *configs, v any) {
			if c.worker.PrefetchMultiplier = v.(int); c.worker.PrefetchMultiplier == 0 {
				c.worker.PrefetchMultiplier = worker.UnlimitedPrefetch
			}
		}},
	{Name: "worker_disable_prefetch", Type: Boolean, Default: "false", Meaning: "hold only what runs",
		use: to(func(c *configs) *bool { return &c.worker.DisablePrefetch })},
	{Name: "worker_disable_rate_limits", Type: Boolean, Default: "false", Meaning: "rate limits have no effect",
		use: to(func(c *configs) *bool { return &c.worker.DisableRateLimits })},
	{Name: "worker_pool", Type: Text, Default: "goroutine", Meaning: "where tasks run: goroutine, or process (Celery's prefork)",
		choices: []string{"goroutine", "process", "prefork", "processes", "threads", "gevent", "eventlet"},
		use:     to(func(c *configs) *string { return &c.worker.Pool })},
	{Name: "worker_max_tasks_per_child", Type: Integer, Meaning: "tasks a child process runs before it is replaced",
		use: to(func(c *configs) *int { return &c.worker.MaxTasksPerChild })},
	{Name: "worker_max_memory_per_child", Type: KiB, min: 1024, Meaning: "memory of a child process with which it is replaced after its task",
		use: to(func(c *configs) *int64 { return &c.worker.MaxMemoryPerChild })},
	{Name: "worker_memory_limit_per_child", Own: true, Type: KiB, min: 16384, Meaning: "memory of a child process with which it is killed",
		use: to(func(c *configs) *int64 { return &c.worker.MemoryLimitPerChild })},
	{Name: "worker_deduplicate_successful_tasks", Type: Boolean, Default: "false", Meaning: "what comes again and has succeeded does not run again",
		use: to(func(c *configs) *bool { return &c.worker.Deduplicate })},
	{Name: "worker_max_deliveries", Own: true, Type: Integer, Default: "5", min: -1, Meaning: "runs of a message whose workers went away before it is quarantined; -1: no limit",
		check: notNothing, use: to(func(c *configs) *int { return &c.worker.MaxDeliveries })},
	{Name: "worker_unknown_task", Own: true, Type: Text, Default: "fail", Meaning: "messages of unknown tasks: fail, reject as Celery does, or requeue for workers that know them",
		choices: []string{"fail", "reject", "requeue"}, use: to(func(c *configs) *string { return &c.worker.UnknownTask })},
	{Name: "worker_unknown_task_hops", Own: true, Type: Integer, Default: "100", min: -1, Meaning: "how often requeue hands a message back; -1: no limit",
		check: notNothing, use: to(func(c *configs) *int { return &c.worker.UnknownTaskHops })},
	{Name: "worker_max_abandoned", Own: true, Type: Integer, min: -1, Default: "half of the concurrency", Meaning: "runs that go on after they were given up before the worker ends; -1: no bound",
		use: to(func(c *configs) *int { return &c.worker.MaxAbandoned })},
	{Name: "worker_limits", Own: true, Type: Limits, Meaning: "limits that all workers share: a list of maps of task or queue, rate and concurrency",
		use: to(func(c *configs) *[]worker.Limit { return &c.worker.Limits })},
	{Name: "worker_limits_url", Own: true, Type: URL, Default: "the broker, else the result backend", Meaning: "the Redis where these limits are kept",
		use: to(func(c *configs) *string { return &c.worker.LimitsURL })},
	{Name: "worker_enable_remote_control", Type: Boolean, Default: "true", Meaning: "obey celery control, inspect and revoke",
		use: func(c *configs, v any) { c.worker.DisableRemoteControl = !v.(bool) }},
	{Name: "worker_disabled_commands", Own: true, Type: Names, Meaning: "commands of remote control that are refused: shutdown, pool_shrink",
		use: to(func(c *configs) *[]string { return &c.worker.DisabledCommands })},
	{Name: "worker_enabled_commands", Own: true, Type: Names, Meaning: "the only commands of remote control that are carried out of those that change something",
		use: to(func(c *configs) *[]string { return &c.worker.EnabledCommands })},
	{Name: "worker_send_task_events", Type: Boolean, Default: "false", Meaning: "send the events of tasks, for Flower and celery events: celery worker -E",
		use: to(func(c *configs) *bool { return &c.worker.TaskEvents })},
	{Name: "worker_heartbeat_interval", Own: true, Type: Seconds, Default: "2", Meaning: "how often monitors are told that the worker is alive: --heartbeat-interval",
		check: notZero, use: to(func(c *configs) *time.Duration { return &c.worker.HeartbeatInterval })},
	{Name: "worker_without_heartbeat", Own: true, Type: Boolean, Default: "false", Meaning: "do not tell them: --without-heartbeat",
		use: to(func(c *configs) *bool { return &c.worker.DisableHeartbeat })},
	{Name: "worker_without_gossip", Own: true, Type: Boolean, Default: "false", Meaning: "do not hear other workers, nor take part in elections: --without-gossip",
		use: to(func(c *configs) *bool { return &c.worker.DisableGossip })},
	{Name: "worker_without_mingle", Own: true, Type: Boolean, Default: "false", Meaning: "do not ask other workers what is revoked: --without-mingle",
		use: to(func(c *configs) *bool { return &c.worker.DisableMingle })},
	{Name: "worker_state_db", Type: Text, Meaning: "path of the file that keeps what is revoked over a restart",
		use: to(func(c *configs) *string { return &c.worker.StateFile })},
	{Name: "worker_chord_size_timeout", Own: true, Type: Seconds, Default: "300", Meaning: "how long a chord may have no size once a part of it is done", check: notZero,
		use: to(func(c *configs) *time.Duration { return &c.worker.ChordSizeTimeout })},
	{Name: "worker_soft_shutdown_timeout", Type: Seconds, Default: "0", Meaning: "how long running tasks may go on when a cold stop is asked for",
		use: to(func(c *configs) *time.Duration { return &c.worker.SoftStopTimeout })},
	{Name: "worker_stop_timeout", Own: true, Type: Seconds, Default: "for ever", Meaning: "how long a warm stop waits for running tasks",
		use: to(func(c *configs) *time.Duration { return &c.worker.StopTimeout })},
	{Name: "worker_health_addr", Own: true, Type: Text, Meaning: "address, or port of the loopback interface, that answers /healthz and /readyz",
		use: to(func(c *configs) *string { return &c.worker.HealthAddr })},
	{Name: "worker_revokes_max", Own: true, Type: Integer, min: 1, Default: "50000", Meaning: "revoked ids that are kept in mind, and as many stamps",
		use: to(func(c *configs) *int { return &c.worker.RevokesMax })},
	{Name: "worker_revoke_expires", Own: true, Type: Seconds, Default: "604800", Meaning: "how long one is kept; a task that is due later runs",
		use: to(func(c *configs) *time.Duration { return &c.worker.RevokeExpires })},

	// Beat.
	{Name: "beat_schedule", Type: Schedule, Meaning: "periodic tasks: see scheduler.md", use: to(func(c *configs) *map[string]any { return &c.beat.schedule })},
	{Name: "beat_files", Own: true, Type: Names, Meaning: "paths of files of periodic tasks, YAML or JSON, which are read again when they change",
		use: to(func(c *configs) *[]string { return &c.beat.Files })},
	{Name: "beat_scheduler", Type: Text, Default: "local", Meaning: "where the schedule is kept: local, redbeat or django, or Celery's names of these",
		check: schedulerKind, use: func(c *configs, v any) { c.beat.Scheduler = schedulers[v.(string)] }},
	{Name: "beat_schedule_filename", Type: Text, Default: DefaultStateFile, Meaning: "path of the file in which the scheduler local keeps what ran last",
		check: notEmpty, use: to(func(c *configs) *string { return &c.beat.StateFile })},
	{Name: "beat_max_loop_interval", Type: Seconds, Default: "1", Meaning: "how often the schedule is looked at at least; Celery's default is 300",
		use: to(func(c *configs) *time.Duration { return &c.beat.Loop.MaxInterval })},
	{Name: "beat_cron_starting_deadline", Type: Seconds, Meaning: "how late a moment of a crontab is still sent, where its entry does not say",
		use: to(func(c *configs) *time.Duration { return &c.beat.Loop.CronDeadline })},
	{Name: "beat_expires", Own: true, Type: Boolean, Default: "true", Meaning: "a run whose entry has no expires expires when the next one is due",
		use: func(c *configs, v any) { c.beat.Loop.KeepExpired = !v.(bool) }},
	{Name: "beat_health_addr", Own: true, Type: Text, Meaning: "address, or port of the loopback interface, that answers /healthz, /readyz and /metrics",
		use: to(func(c *configs) *string { return &c.beat.HealthAddr })},
	{Name: "beat_database_url", Own: true, Type: URL, Meaning: "the database of django-celery-beat: postgresql://user:password@host/database",
		use: to(func(c *configs) *string { return &c.beat.DatabaseURL })},
	{Name: "django_celery_beat_tz_aware", Type: Boolean, Default: "true", Meaning: "false: the times in that database have no zone, as with Django's USE_TZ = False",
		use: func(c *configs, v any) { c.beat.Unaware = !v.(bool) }},
	{Name: "beat_database_timezone", Own: true, Type: Text, Default: "UTC", Meaning: "Django's TIME_ZONE, where its times have no zone and the database is PostgreSQL", check: isZone,
		use: func(c *configs, v any) { c.beat.DatabaseZone, _ = time.LoadLocation(v.(string)) }},
	{Name: "redbeat_redis_url", Type: URL, Default: "broker_url", Meaning: "the Redis of the scheduler redbeat",
		use: to(func(c *configs) *string { return &c.beat.RedisURL })},
	{Name: "redbeat_redis_options", Type: Options, Meaning: "options of that connection, as broker_transport_options has them",
		use: to(func(c *configs) *map[string]any { return &c.beat.RedisOptions })},
	{Name: "redbeat_key_prefix", Type: Text, Default: "redbeat:", Meaning: "what its keys begin with", check: notEmpty,
		use: to(func(c *configs) *string { return &c.beat.KeyPrefix })},
	{Name: "redbeat_lock_key", Type: Text, Default: "redbeat::lock", Meaning: "key of the lock that the leading beat holds; null: no lock",
		use: to(func(c *configs) *string { return &c.beat.LockKey })},
	{Name: "redbeat_lock_timeout", Type: Seconds, Default: "6", Meaning: "how long the lock outlives a beat that is lost; RedBeat's default is 1500", check: notZero,
		use: to(func(c *configs) *time.Duration { return &c.beat.LockTimeout })},
	{Name: "timezone", Type: Text, Default: "UTC", Meaning: "the zone of periodic tasks that name none; times in messages are in UTC", check: isZone,
		use: func(c *configs, v any) { c.beat.Zone, _ = time.LoadLocation(v.(string)) }},
	{Name: "enable_utc", Type: Boolean, Default: "true", Meaning: "false: without timezone, that zone is the system's; messages are in UTC in any case",
		use: func(c *configs, v any) {
			if !v.(bool) && c.beat.Zone == nil {
				c.beat.Zone = systemZone()
			}
		}},
}

func notZero(v any) error {
	if v == time.Duration(0) {
		return errors.New("0 is not allowed")
	}
	return nil
}

func notNothing(v any) error {
	if v == 0 {
		return errors.New("0 is not allowed")
	}
	return nil
}

func isTrue(v any) error {
	if v != true {
		return errors.New("false is not allowed for all tasks; give those that want it task.RejectOnWorkerLost(false)")
	}
	return nil
}

func notEmpty(v any) error {
	if v == "" {
		return errors.New("it is empty")
	}
	return nil
}

func writes(v any) error {
	s, ok := serialization.Lookup(v.(string))
	if !ok || s.Name() == "pickle" || s.Name() == "raw" {
		return fmt.Errorf("%q is no serializer that can write; allowed: json, msgpack, yaml", v)
	}
	return nil
}

func accepts(v any) error {
	_, err := serialization.NewAccept(v.([]string)...)
	return err
}

func compresses(v any) error {
	if v == "" {
		return nil
	}
	_, _, err := compression.Compress(v.(string), nil)
	return err
}

func nodeName(v any) error {
	_, err := worker.NodeName(v.(string))
	return err
}

func persistent(v any) error {
	if !slices.Contains([]any{int64(2), "2", "persistent"}, v) {
		return fmt.Errorf("%v is not 2; for messages in memory give the tasks or calls task.Transient", v)
	}
	return nil
}

// parseAutoscale reads Celery's MAX,MIN.
func parseAutoscale(text string) (worker.Autoscale, error) {
	var a worker.Autoscale
	most, least, both := strings.Cut(text, ",")
	wrong := fmt.Errorf("%q is not MAX or MAX,MIN", text)
	var err error
	if a.Max, err = wholeNumber(most, 0, 100_000); err != nil {
		return a, wrong
	}
	if both {
		if a.Min, err = wholeNumber(least, 0, 100_000); err != nil {
			return a, wrong
		}
	}
	if a.Min > a.Max { // Celery takes them in either order
		a.Min, a.Max = a.Max, a.Min
	}
	if a.Max == 0 {
		return a, wrong
	}
	return a, nil
}
