package worker

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/internal/moduleversion"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// confCommand answers with the configuration under Celery's names: what differs from the defaults or, with with_defaults, all
// of it. What may be a secret is hidden as Celery hides it.
func confCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	return w.conf(a.truth("with_defaults"))
}

func (w *Worker) conf(withDefaults bool) (map[string]any, error) {
	table := settingsTable(w.client.Config(), w.config)
	if !withDefaults {
		client, err := task.NewClient(nil, nil, task.Config{})
		if err != nil {
			return nil, err
		}
		usual, err := Config{}.withDefaults(client.Config())
		if err != nil {
			return nil, err
		}
		defaults := settingsTable(client.Config(), usual)
		maps.DeleteFunc(table, func(name string, v any) bool {
			return reflect.DeepEqual(v, defaults[name]) && !slices.Contains(expectedSettings, name)
		})
	}
	return censored(table), nil
}

// defaultResultExpires is how long results are kept where nothing is set.
const defaultResultExpires = 24 * time.Hour

// expectedSettings are shown in any case: Python programs look for them, Celery's own tests among them.
var expectedSettings = []string{"broker_url", "result_backend", "accept_content", "enable_utc", "timezone", "broker_heartbeat", "include",
	"deprecated_settings", "worker_hijack_root_logger", "worker_log_color"}

// settingsTable is what settings the configurations stand for.
func settingsTable(c task.Config, w Config) map[string]any {
	orNone := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	limit := func(d time.Duration) any {
		if d == 0 {
			return nil
		}
		return secondsValue(d)
	}
	count := func(n int) any {
		if n == 0 {
			return nil
		}
		return int64(n)
	}
	options := func(m map[string]any) any {
		if len(m) == 0 {
			return map[string]any{}
		}
		return m
	}
	yes := func(b *bool) bool { return b == nil || *b }
	prefetch := w.PrefetchMultiplier
	if prefetch == UnlimitedPrefetch {
		prefetch = 0
	}
	expires := limit(c.ResultExpires)
	switch {
	case c.ResultExpires == 0:
		expires = secondsValue(defaultResultExpires)
	case c.ResultExpires < 0:
		expires = nil
	}
	unless := func(usual, v string) any { // null stands for what is usual
		if v == usual {
			return nil
		}
		return v
	}
	table := maps.Clone(fixedSettings)
	maps.Copy(table, map[string]any{
		"broker_url": orNone(c.Broker), "result_backend": orNone(c.Backend), "broker_transport_options": options(c.TransportOptions),
		"result_backend_transport_options": options(c.BackendOptions),
		"task_default_queue":               c.Queue, "task_default_exchange": unless(c.Queue, c.Exchange), "task_default_exchange_type": c.ExchangeType,
		"task_default_routing_key": c.RoutingKey, "task_default_queue_type": c.QueueType, "task_queues": describeQueues(c.Queues),
		"task_create_missing_queues": yes(c.CreateMissingQueues), "task_queue_max_priority": count(c.QueueMaxPriority),
		"task_create_missing_queue_type": c.CreateMissingQueueType, "task_create_missing_queue_exchange_type": unless(c.ExchangeType, c.CreateMissingQueueExchangeType),
		"task_serializer": c.Serializer, "task_compression": orNone(c.Compression), "task_protocol": int64(c.Protocol),
		"accept_content": textList(c.AcceptContent), "result_serializer": c.ResultSerializer, "result_accept_content": textList(c.ResultAcceptContent),
		"result_expires": expires, "result_persistent": c.ResultPersistent, "task_ignore_result": c.IgnoreResult,
		"task_send_sent_event": c.SendSentEvent, "event_exchange": c.EventExchange, "task_routes": describeRoutes(c.Routes),
		"worker_concurrency": int64(w.Concurrency), "worker_prefetch_multiplier": int64(prefetch), "worker_disable_prefetch": w.DisablePrefetch,
		"worker_direct": w.Direct, "worker_pool": w.Pool, "task_track_started": w.TrackStarted, "result_extended": w.ResultExtended,
		"worker_soft_shutdown_timeout": w.SoftStopTimeout.Seconds(), "task_time_limit": limit(w.TimeLimit), "task_soft_time_limit": limit(w.SoftTimeLimit),
		"task_default_rate_limit": orNone(w.DefaultRateLimit), "worker_disable_rate_limits": w.DisableRateLimits, "task_acks_late": !w.AckEarly,
		"task_acks_on_failure_or_timeout": yes(w.AckOnFailure) && yes(w.AckOnTimeout), "task_store_errors_even_if_ignored": w.StoreErrorsEvenIfIgnored,
		"worker_deduplicate_successful_tasks": w.Deduplicate, "worker_max_tasks_per_child": count(w.MaxTasksPerChild),
		"worker_max_memory_per_child": count(int(w.MaxMemoryPerChild >> 10)), "worker_enable_remote_control": !w.DisableRemoteControl,
		"worker_send_task_events": w.TaskEvents, "worker_state_db": orNone(w.StateFile),
		"result_chord_retry_interval": w.ChordRetryInterval.Seconds(), "result_chord_join_timeout": w.ChordJoinTimeout.Seconds(),
		"task_inherit_parent_priority": c.InheritParentPriority, "task_allow_error_cb_on_chord_header": c.HeaderErrbacks,
	})
	return table
}

// fixedSettings are those about which Go workers have no choice.
var fixedSettings = map[string]any{
	"enable_utc": true, "timezone": nil, "broker_heartbeat": nil, "include": []any{}, "deprecated_settings": nil,
	"worker_hijack_root_logger": false, "worker_log_color": nil, "worker_pool_restarts": false,
	"broker_connection_retry": true, "broker_connection_retry_on_startup": true, "broker_connection_max_retries": nil,
	"control_exchange": strings.TrimSuffix(protocol.PidboxExchange, ".pidbox"), "event_serializer": serialization.JSON.Name(),
	"worker_detect_quorum_queues": true, "worker_enable_prefetch_count_reduction": true, "worker_eta_task_limit": nil,
	"worker_cancel_long_running_tasks_on_connection_loss": false, "worker_enable_soft_shutdown_on_idle": false,
	"result_compression": nil, "task_reject_on_worker_lost": true, "task_publish_retry": true,
	"task_always_eager": false, "task_annotations": nil, "task_default_delivery_mode": int64(2), "task_default_priority": nil,
}

func describeQueues(queues []transport.Queue) any {
	if len(queues) == 0 {
		return nil
	}
	out := make([]any, len(queues))
	for i, q := range queues {
		out[i] = describeQueue(q)
	}
	return out
}

// describeRoutes is null or one text, as Celery shows what is no plain value.
func describeRoutes(routes []task.Route) any {
	if len(routes) == 0 {
		return nil
	}
	return fmt.Sprintf("<%d routes>", len(routes))
}

func textList(texts []string) []any {
	out := make([]any, len(texts))
	for i, s := range texts {
		out[i] = s
	}
	return out
}

// hidden stands for what may be a secret.
const hidden = "********"

// secretSetting is Celery's rule of what is one.
var secretSetting = regexp.MustCompile(`(?i)API|TOKEN|KEY|SECRET|PASS|PROFANITIES_LIST|SIGNATURE|DATABASE|BEAT_DBURI`)

// maskedPassword finds the passwords that brokerurl has taken out.
var maskedPassword = regexp.MustCompile(`:\*{3}@`)

// censored is a configuration as anybody may see it, with what no message can hold as text.
func censored(table map[string]any) map[string]any {
	out := make(map[string]any, len(table))
	for name, v := range table {
		out[name] = shown(name, v)
	}
	return out
}

func shown(name string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		return censored(v)
	case nil:
		return nil
	}
	if secretSetting.MatchString(name) {
		return hidden
	}
	switch v := v.(type) {
	case string:
		return maskedPassword.ReplaceAllString(brokerurl.Redact(v), ":"+hidden+"@")
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = shown("", v[i])
		}
		return out
	case bool, int64, float64:
		return v
	case int:
		return int64(v)
	case time.Duration:
		return secondsValue(v)
	default:
		return brokerurl.Redact(value.Repr(v, longestText))
	}
}

// reportCommand is what a report of a mistake should tell of the worker: software, platform and settings.
func reportCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	conf, err := w.conf(false)
	if err != nil {
		return nil, err
	}
	version, revision := moduleversion.Read()
	if revision != "" {
		version += " " + revision
	}
	show := func(url, none string) string {
		if url == "" {
			return none
		}
		return maskedPassword.ReplaceAllString(brokerurl.Redact(url), ":"+hidden+"@")
	}
	c := w.client.Config()
	var b strings.Builder
	fmt.Fprintf(&b, "\nsoftware -> gelery:%s go:%s\nplatform -> system:%s arch:%s cpus:%d\nloader   -> none\nsettings -> transport:%v results:%s\n\n",
		version, strings.TrimPrefix(runtime.Version(), "go"), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), w.describeBroker()["transport"],
		show(c.Backend, "disabled"))
	for _, name := range slices.Sorted(maps.Keys(conf)) {
		b.WriteString(name + ": " + value.Repr(conf[name], longestText) + "\n")
	}
	return ok(b.String()), nil
}
