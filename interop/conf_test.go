package interop

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// lacking are names of an answer that Python's has and Go's has not.
type lacking struct {
	why   string
	names string
	newer string // those that Celery 5.2 has not either
}

// confKinds: the broker's URL is each side's own, and the modules of Python come in any order.
var confKinds = []string{"broker_url", "include"}

// confDiffers is what differs in the settings that were set.
var confDiffers = []string{
	// The Go worker is not told to accept them.
	`.accept_content[1]: "msgpack" / nothing`, `.accept_content[2]: "yaml" / nothing`,
	// Always shown by Go: Python programs look for them.
	".broker_heartbeat: nothing / null", ".enable_utc: nothing / true", ".timezone: nothing / null",
	".worker_hijack_root_logger: nothing / false", ".worker_log_color: nothing / null",
	// Python has modules.
	".include: nothing / []", ".include[0]: str / nothing", ".include[1]: str / nothing", ".include[2]: str / nothing", ".include[3]: str / nothing",
	// Python's come from the command line, which is no setting.
	".worker_concurrency: nothing / 1", `.worker_pool: nothing / "process"`,
}

// confLacks is what Python's settings have that were set.
var confLacks = []lacking{
	{why: "Go shows what differs from its defaults; the Python worker was told these",
		names: `broker_connection_retry_on_startup result_accept_content result_expires result_extended result_serializer task_acks_late
			task_compression task_default_queue task_ignore_result task_protocol task_queues task_serializer task_track_started worker_prefetch_multiplier`,
		newer: "worker_disable_prefetch"},
	{why: "modules are Python's", names: "imports"},
}

// defaultsDiffer is what differs in all settings.
var defaultsDiffer = []string{
	// The Go worker is not told to accept them.
	`.accept_content[1]: "msgpack" / nothing`, `.accept_content[2]: "yaml" / nothing`,
	`.result_accept_content[1]: "msgpack" / nothing`, `.result_accept_content[2]: "yaml" / nothing`,
	// Python has modules.
	".include: nothing / []", ".include[0]: str / nothing", ".include[1]: str / nothing", ".include[2]: str / nothing", ".include[3]: str / nothing",
	// What Python's settings say in place of what its worker does: its queue, slots and pool are of its command line, and a setting
	// that is not set is null where Go tells what follows from that.
	`.task_default_queue: "QUEUE" / "celery"`, ".worker_concurrency: null / 1", `.worker_pool: "prefork" / "process"`, ".result_persistent: null / false",
	".broker_heartbeat: 120 / null",              // Go's is the AMQP driver's, 10 s, unless it was set
	".result_expires: 86400.0 / 86400",           // the same
	".broker_connection_max_retries: 100 / null", // Go tries for ever, which is Celery's null
	`.deprecated_settings: "set()" / null`,       // the repr of a set of Python's
	".task_acks_late: false / true",              // docs/differences.md
	".task_reject_on_worker_lost: null / true",   // docs/differences.md
	".worker_hijack_root_logger: true / false",   // Go has no root logger
	// Of later versions.
	"5.2| .task_allow_error_cb_on_chord_header: nothing / false",
	"5.2| .task_create_missing_queue_exchange_type: nothing / null", `5.2| .task_create_missing_queue_type: nothing / "classic"`,
	`5.2| .task_default_queue_type: nothing / "classic"`, "5.2| .worker_detect_quorum_queues: nothing / true",
	"5.2| .worker_disable_prefetch: nothing / false", "5.2| .worker_enable_prefetch_count_reduction: nothing / true",
	"5.2| .worker_enable_soft_shutdown_on_idle: nothing / false", "5.2| .worker_eta_task_limit: nothing / null",
	"5.2| .worker_soft_shutdown_timeout: nothing / 0.0",
}

// defaultsLack are the settings of Celery that a Go worker does not answer.
var defaultsLack = []lacking{
	{why: "modules, classes, loggers and pipes are Python's",
		names: `imports worker_agent worker_autoscaler worker_consumer worker_timer worker_timer_precision worker_log_format worker_task_log_format
			worker_redirect_stdouts worker_redirect_stdouts_level worker_pool_putlocks worker_proc_alive_timeout worker_lost_wait
			task_remote_tracebacks task_eager_propagates task_store_eager_result result_cache_max
			security_cert_store security_certificate security_digest security_key`,
		newer: "security_key_password"},
	{why: "the broker's URL has them", names: "broker_host broker_password broker_port broker_transport broker_user broker_vhost"},
	{why: "the worker has one broker, and broker_url shows it", names: "broker_read_url broker_write_url"},
	{why: "options of the broker's driver: broker_transport_options shows what is set",
		names: "broker_connection_timeout broker_failover_strategy broker_login_method broker_use_ssl",
		newer: "broker_native_delayed_delivery_queue_type"},
	{why: "how connections and publishing are repeated has rules of its own", newer: "broker_channel_error_retry",
		names: "broker_heartbeat_checkrate broker_pool_limit task_publish_retry_policy"},
	{why: "options of the result backend's driver: result_backend_transport_options shows what is set",
		names: `redis_backend_use_ssl redis_db redis_host redis_max_connections redis_password redis_port redis_retry_on_timeout
			redis_socket_connect_timeout redis_socket_keepalive redis_socket_timeout redis_username
			database_engine_options database_short_lived_sessions database_table_names database_table_schemas database_url`,
		newer: "database_create_tables_at_setup"},
	{why: "a result that cannot be stored is tried again by rules of its own",
		names: `result_backend_always_retry result_backend_base_sleep_between_retries_ms result_backend_max_retries
			result_backend_max_sleep_between_retries_ms`},
	{why: "the exchange of a backend that Celery has removed", names: "result_exchange result_exchange_type"},
	{why: "queues of remote control and of receivers of events are always exclusive, and expire",
		names: "control_queue_expires control_queue_ttl event_queue_expires event_queue_prefix event_queue_ttl",
		newer: "control_queue_durable control_queue_exclusive event_queue_durable event_queue_exclusive"},
	{why: "beat's: the worker does not know them", newer: "beat_cron_starting_deadline",
		names: "beat_max_loop_interval beat_schedule beat_schedule_filename beat_scheduler beat_sync_every"},
	{why: "of result backends that Gelery has not",
		names: `arangodb_backend_settings azureblockblob_base_path azureblockblob_connection_timeout azureblockblob_container_name
			azureblockblob_read_timeout azureblockblob_retry_increment_base azureblockblob_retry_initial_backoff_sec
			azureblockblob_retry_max_attempts cache_backend cache_backend_options cassandra_auth_kwargs cassandra_auth_provider
			cassandra_entry_ttl cassandra_keyspace cassandra_options cassandra_port cassandra_read_consistency cassandra_servers
			cassandra_table cassandra_write_consistency cosmosdbsql_collection_name cosmosdbsql_consistency_level
			cosmosdbsql_database_name cosmosdbsql_max_retry_attempts cosmosdbsql_max_retry_wait_time couchbase_backend_settings
			elasticsearch_max_retries elasticsearch_retry_on_timeout elasticsearch_save_meta_as_text elasticsearch_timeout
			mongodb_backend_settings s3_access_key_id s3_base_path s3_bucket s3_endpoint_url s3_region s3_secret_access_key`,
		newer: "cassandra_bundle_path gcs_base_path gcs_bucket gcs_project gcs_ttl"},
}

// leaveOut takes the names that Go's answer lacks out of Python's. One that it does not lack, or Python's has not, is an error.
func (q *inquiry) leaveOut(t *testing.T, version string, python, golang map[string]string) {
	t.Helper()
	has := func(fields map[string]string, name string) bool {
		return slices.ContainsFunc(slices.Collect(maps.Keys(fields)), func(path string) bool { return isIn(path, name) })
	}
	for _, l := range q.lacks {
		names := l.names
		if version != versions[0] {
			names += " " + l.newer
		}
		for _, name := range strings.Fields(names) {
			if has(golang, name) || !has(python, name) {
				t.Errorf("%s %v: it is not so that Python's answer has %s and Go's has not (%s)", q.method, q.kwargs, name, l.why)
				continue
			}
			maps.DeleteFunc(python, func(path, _ string) bool { return isIn(path, name) })
		}
	}
}

// isIn tells the paths of a name of an answer, and of what is in it.
func isIn(path, name string) bool {
	rest, ok := strings.CutPrefix(path, "."+name)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}
