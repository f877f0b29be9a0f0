package settings

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/gelery/gelery/internal/spelling"
)

// irregular are those of Celery's old names that do not follow the rules of candidates.
var irregular = map[string]string{
	"celery_eager_propagates_exceptions":    "task_eager_propagates",
	"celery_max_cached_results":             "result_cache_max",
	"celery_message_compression":            "task_compression",
	"celery_result_db_tablenames":           "database_table_names",
	"celery_result_dburi":                   "database_url",
	"celery_result_db_short_lived_sessions": "database_short_lived_sessions",
	"celery_result_engine_options":          "database_engine_options",
	"celery_send_events":                    "worker_send_task_events",
	"celery_send_task_sent_event":           "task_send_sent_event",
	"celery_task_result_expires":            "result_expires",
}

// candidates are what a name may stand for, in Celery's names of today: itself, or in upper case one of a Django project
// or one of Celery 3.
func candidates(name string) []string {
	if name != strings.ToUpper(name) {
		return []string{name}
	}
	name = strings.ToLower(name)
	all := []string{name}
	if today, ok := irregular[name]; ok {
		return []string{today}
	}
	if rest, ok := strings.CutPrefix(name, "celery_"); ok {
		all = append(all, rest, "task_"+rest, "worker_"+rest)
	}
	if rest, ok := strings.CutPrefix(name, "celeryd_"); ok {
		all = append(all, rest, "worker_"+rest)
	}
	if rest, ok := strings.CutPrefix(name, "celerybeat_"); ok {
		all = append(all, "beat_"+rest)
	}
	return all
}

// Why a setting of Celery has no effect.
const (
	ofPython   = "it is Python's alone"
	ofBackends = "it is of a result backend that Gelery does not have"
	ofEvents   = "it is for receivers of events and for remote control, which have their defaults"
	ofSessions = "it is about SQLAlchemy's sessions; each call takes a connection of a pool"
	ofSaving   = "what beat did is written down at each run"
	isSo       = "it is so anyway"
)

// pythonNames are the settings of Celery without an effect here.
var pythonNames = map[string][]string{
	ofPython: {"imports", "include", "worker_agent", "worker_autoscaler", "worker_consumer", "worker_timer",
		"worker_timer_precision", "worker_pool_putlocks", "worker_pool_restarts", "worker_proc_alive_timeout", "worker_lost_wait",
		"worker_hijack_root_logger", "worker_log_color", "worker_log_format", "worker_task_log_format", "worker_redirect_stdouts",
		"worker_redirect_stdouts_level", "task_remote_tracebacks", "broker_pool_limit", "broker_heartbeat_checkrate",
		"broker_channel_error_retry", "result_cache_max", "result_exchange", "result_exchange_type", "redis_retry_on_timeout",
		"task_eager_propagates", "task_store_eager_result", "task_publish_retry", "task_publish_retry_policy"},
	ofBackends: {"result_backend_always_retry", "result_backend_max_retries", "result_backend_base_sleep_between_retries_ms",
		"result_backend_max_sleep_between_retries_ms"},
	ofSaving:   {"beat_sync_every"},
	ofSessions: {"database_short_lived_sessions"},
	isSo:       slices.Sorted(maps.Keys(asIs)),
}

// asIs are the settings of Celery with what Gelery does in any case: the value first, then others that mean the same.
var asIs = map[string][]any{
	"broker_connection_retry":                             {true},
	"broker_connection_retry_on_startup":                  {true},
	"broker_connection_max_retries":                       {nil, int64(0)}, // for ever
	"worker_detect_quorum_queues":                         {true},
	"worker_enable_prefetch_count_reduction":              {true},
	"worker_eta_task_limit":                               {nil},
	"worker_cancel_long_running_tasks_on_connection_loss": {false},
	"worker_enable_soft_shutdown_on_idle":                 {false},
	"event_serializer":                                    {"json", "application/json"}, // which every receiver reads
}

// withoutEffect tells why a setting has none, and whether its value asks for something that Gelery does not do.
func withoutEffect(v Value) (why string, differs bool) {
	same := asIs[v.Name]
	switch {
	case same == nil || v.Value == nil:
		return v.without, false
	}
	value := v.Value
	if _, toggle := same[0].(bool); toggle {
		if b, err := boolean(textNode(fmt.Sprint(value))); err == nil { // yes, on, 1
			value = b
		}
	}
	for _, s := range same {
		if reflect.DeepEqual(s, value) { // which may be a list or a map
			return v.without, false
		}
	}
	is := same[0]
	if is == nil {
		is = "null"
	}
	return fmt.Sprintf("it has no effect; it is always %v", is), true
}

// pythonPrefixes begin the names of whole groups of them.
var pythonPrefixes = map[string]string{
	"event_queue_": ofEvents, "control_": ofEvents, "security_": ofPython, "cache_": ofBackends,
	"cassandra_": ofBackends, "s3_": ofBackends, "azureblockblob_": ofBackends, "gcs_": ofBackends, "couchbase_": ofBackends,
	"arangodb_": ofBackends, "mongodb_": ofBackends, "cosmosdbsql_": ofBackends, "elasticsearch_": ofBackends, "dynamodb_": ofBackends,
}

// python tells why a name has no effect; "" for a name that is none of those.
func python(name string) string {
	for why, names := range pythonNames {
		if slices.Contains(names, name) {
			return why
		}
	}
	for prefix, why := range pythonPrefixes {
		if strings.HasPrefix(name, prefix) {
			return why
		}
	}
	return ""
}

func unknownName(name string) error {
	known := make([]string, 0, len(table))
	for i := range table {
		known = append(known, table[i].Name)
	}
	for _, names := range pythonNames {
		known = append(known, names...)
	}
	slices.Sort(known)
	for _, c := range candidates(name) {
		if near := spelling.Nearest(c, known); near != "" {
			return fmt.Errorf("there is no such setting; did you mean %s?", near)
		}
	}
	return fmt.Errorf("there is no such setting; gelery config settings lists those there are")
}
