package monitor

import (
	"fmt"

	"github.com/gelery/gelery/protocol/value"
)

// TaskInfo is a task as a worker tells of one that it has: Celery's Request.info. What a worker does not tell is zero.
type TaskInfo struct {
	ID           string       `json:"id"`
	Name         string       `json:"name"`
	Type         *string      `json:"type"`
	Args         any          `json:"args"`   // a list, or its repr as text
	Kwargs       any          `json:"kwargs"` // a mapping, or its repr as text
	Hostname     string       `json:"hostname"`
	TimeStart    *float64     `json:"time_start"` // unix seconds; nil: it has not begun. Python before 5.1 tells seconds since the host's start
	Acknowledged bool         `json:"acknowledged"`
	DeliveryInfo DeliveryInfo `json:"delivery_info"`
	WorkerPID    *int64       `json:"worker_pid"`
}

// DeliveryInfo is how a task came to its worker.
type DeliveryInfo struct {
	Exchange    *string `json:"exchange"`
	RoutingKey  *string `json:"routing_key"`
	Priority    *int64  `json:"priority"`
	Redelivered *bool   `json:"redelivered"`
}

// ScheduledTask is a task that waits for its time.
type ScheduledTask struct {
	ETA      string   `json:"eta"` // ISO 8601
	Priority any      `json:"priority"`
	Request  TaskInfo `json:"request"`
}

// QueriedTask is the answer about one id: "active", "reserved" or "ready", and the task.
type QueriedTask struct {
	State   string
	Request TaskInfo
}

// UnmarshalValue implements value.Unmarshaler: Celery's pair.
func (q *QueriedTask) UnmarshalValue(v any) error {
	pair, ok := v.([]any)
	if !ok || len(pair) != 2 {
		return fmt.Errorf("%s is no pair of state and task", value.Repr(v, 100))
	}
	if err := value.Assign(&q.State, pair[0]); err != nil {
		return err
	}
	return value.Assign(&q.Request, pair[1])
}

// ActiveQueue is a queue that a worker receives from: kombu's Queue.as_dict.
type ActiveQueue struct {
	Name       string         `json:"name"`
	Exchange   ActiveExchange `json:"exchange"`
	RoutingKey *string        `json:"routing_key"`
	Arguments  map[string]any `json:"queue_arguments"`
	Durable    *bool          `json:"durable"`
	Exclusive  *bool          `json:"exclusive"`
	AutoDelete *bool          `json:"auto_delete"`
	NoAck      *bool          `json:"no_ack"`
	Alias      *string        `json:"alias"`
}

// ActiveExchange is a queue's exchange. Name is "" for AMQP's default exchange.
type ActiveExchange struct {
	Name    *string `json:"name"`
	Type    *string `json:"type"`
	Durable *bool   `json:"durable"`
}

// Stats are a worker's figures: Celery's WorkController.stats.
type Stats struct {
	Total         map[string]int64 `json:"total"` // tasks accepted since the start, by name
	PID           int64            `json:"pid"`
	Clock         any              `json:"clock"`  // text
	Uptime        *float64         `json:"uptime"` // seconds
	Pool          PoolStats        `json:"pool"`
	Broker        map[string]any   `json:"broker"`
	PrefetchCount *int64           `json:"prefetch_count"` // nil: the worker receives nothing now
	Rusage        any              `json:"rusage"`         // a mapping; Python on Windows: text
	Autoscaler    map[string]any   `json:"autoscaler"`     // max, min, current, qty; nil: there is none
}

// PoolStats are the figures of a worker's pool. What a pool has not is nil, or another word of its own.
type PoolStats struct {
	Implementation   *string `json:"implementation"`
	MaxConcurrency   *int64  `json:"max-concurrency"`
	Processes        []int64 `json:"processes"`
	MaxTasksPerChild any     `json:"max-tasks-per-child"` // a number or "N/A"
	Timeouts         any     `json:"timeouts"`            // [soft, hard] in seconds, 0 for none
	PutGuardedBySema *bool   `json:"put-guarded-by-semaphore"`
	Writes           any     `json:"writes"`
	FreeThreads      *int64  `json:"free-threads"`    // eventlet and gevent
	RunningThreads   *int64  `json:"running-threads"` // eventlet and gevent
}

// Clock is a worker's logical clock.
type Clock struct {
	Clock int64 `json:"clock"`
}

// Hello is what a worker tells one that starts.
type Hello struct {
	Revoked map[string]any `json:"revoked"` // ids, each with when: [monotonic seconds, id], or unix seconds
	Clock   int64          `json:"clock"`
}
