package settings

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/gelery/gelery/task"
)

// clientFields are the settings that fill the fields of task.Config, and workerFields those of worker.Config, by which the
// errors of task.NewClient and worker.New name what is wrong.
var (
	clientFields = map[string]string{
		"Broker":                         "broker_url",
		"Backend":                        "result_backend",
		"TransportOptions":               "broker_transport_options",
		"BackendOptions":                 "result_backend_transport_options",
		"Queue":                          "task_default_queue",
		"Exchange":                       "task_default_exchange",
		"ExchangeType":                   "task_default_exchange_type",
		"RoutingKey":                     "task_default_routing_key",
		"QueueType":                      "task_default_queue_type",
		"Queues":                         "task_queues",
		"CreateMissingQueues":            "task_create_missing_queues",
		"CreateMissingQueueType":         "task_create_missing_queue_type",
		"CreateMissingQueueExchangeType": "task_create_missing_queue_exchange_type",
		"QueueMaxPriority":               "task_queue_max_priority",
		"Routes":                         "task_routes",
		"Serializer":                     "task_serializer",
		"Compression":                    "task_compression",
		"Protocol":                       "task_protocol",
		"AcceptContent":                  "accept_content",
		"ResultSerializer":               "result_serializer",
		"ResultAcceptContent":            "result_accept_content",
		"ResultExpires":                  "result_expires",
		"ResultPersistent":               "result_persistent",
		"InheritParentPriority":          "task_inherit_parent_priority",
		"HeaderErrbacks":                 "task_allow_error_cb_on_chord_header",
		"IgnoreResult":                   "task_ignore_result",
		"PublishTimeout":                 "task_publish_timeout",
		"EventExchange":                  "event_exchange",
		"SendSentEvent":                  "task_send_sent_event",
		"SecretNames":                    "task_secret_names",
	}
	workerFields = map[string]string{
		"Queues":                   "worker_queues",
		"ExcludeQueues":            "worker_exclude_queues",
		"Direct":                   "worker_direct",
		"Concurrency":              "worker_concurrency",
		"Autoscale":                "worker_autoscale",
		"PrefetchMultiplier":       "worker_prefetch_multiplier",
		"DisablePrefetch":          "worker_disable_prefetch",
		"Hostname":                 "worker_hostname",
		"TrackStarted":             "task_track_started",
		"ResultExtended":           "result_extended",
		"ChordRetryInterval":       "result_chord_retry_interval",
		"ChordJoinTimeout":         "result_chord_join_timeout",
		"ChordSizeTimeout":         "worker_chord_size_timeout",
		"StopTimeout":              "worker_stop_timeout",
		"SoftStopTimeout":          "worker_soft_shutdown_timeout",
		"TimeLimit":                "task_time_limit",
		"SoftTimeLimit":            "task_soft_time_limit",
		"MaxAbandoned":             "worker_max_abandoned",
		"DefaultRateLimit":         "task_default_rate_limit",
		"DisableRateLimits":        "worker_disable_rate_limits",
		"AckEarly":                 "task_acks_late",
		"AckOnFailure":             "task_acks_on_failure",
		"AckOnTimeout":             "task_acks_on_timeout",
		"StoreErrorsEvenIfIgnored": "task_store_errors_even_if_ignored",
		"MaxDeliveries":            "worker_max_deliveries",
		"Deduplicate":              "worker_deduplicate_successful_tasks",
		"UnknownTask":              "worker_unknown_task",
		"UnknownTaskHops":          "worker_unknown_task_hops",
		"Pool":                     "worker_pool",
		"MaxTasksPerChild":         "worker_max_tasks_per_child",
		"MaxMemoryPerChild":        "worker_max_memory_per_child",
		"MemoryLimitPerChild":      "worker_memory_limit_per_child",
		"Limits":                   "worker_limits",
		"LimitsURL":                "worker_limits_url",
		"DisableRemoteControl":     "worker_enable_remote_control",
		"DisabledCommands":         "worker_disabled_commands",
		"EnabledCommands":          "worker_enabled_commands",
		"TaskEvents":               "worker_send_task_events",
		"HeartbeatInterval":        "worker_heartbeat_interval",
		"DisableHeartbeat":         "worker_without_heartbeat",
		"DisableGossip":            "worker_without_gossip",
		"DisableMingle":            "worker_without_mingle",
		"RevokesMax":               "worker_revokes_max",
		"RevokeExpires":            "worker_revoke_expires",
		"StateFile":                "worker_state_db",
		"HealthAddr":               "worker_health_addr",
	}
)

// Named turns an error of task.NewClient or worker.New, which begins with the name of a field, into one about the setting
// that fills it: an [*Error] if that is set. Other errors it returns as they are.
func (s *Settings) Named(err error) error {
	if err == nil {
		return nil
	}
	text, fields := err.Error(), clientFields
	if rest, ok := strings.CutPrefix(text, "worker config: "); ok {
		text, fields = rest, workerFields
	} else if text, ok = strings.CutPrefix(text, "config: "); !ok {
		return err
	}
	field, what, _ := strings.Cut(text, ": ")
	field, index, list := strings.Cut(field, "[")
	if i, err := strconv.Atoi(strings.TrimSuffix(index, "]")); list && err == nil {
		what = fmt.Sprintf("item %d: %s", i+1, what)
	}
	name := fields[field]
	if name == "" {
		return err
	}
	if v, ok := s.values[name]; ok {
		return &Error{Name: name, Origin: v.Origin, Err: errors.New(what)}
	}
	return fmt.Errorf("%s: %s", name, what)
}

// CheckWorker finds what would keep a worker with these settings from starting: what task.NewClient and worker.New refuse. It
// is not part of Check, because code may add to the settings what a worker needs.
func (s *Settings) CheckWorker() error {
	c := s.apply("broker_read_url")
	if c.client.Broker == "" {
		c.client.Broker = byName["broker_url"].Default
	}
	client, err := task.NewClient(nil, nil, c.client)
	if err == nil {
		err = c.worker.Check(client)
	}
	return s.Named(err)
}
