package transport

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Inspector is what an operator asks of a broker. Drivers that can, implement it beside Transport.
type Inspector interface {
	// Depths tells how many messages wait in each queue, by priority where the broker tells.
	Depths(ctx context.Context, queues []string) ([]Depth, error)
	// Queues lists the names of the queues the broker knows, sorted.
	Queues(ctx context.Context) ([]string, error)
	// Purge removes all waiting messages of a queue, those that a Delayer's Delay has left with it included where they can
	// be told, and tells how many there were.
	Purge(ctx context.Context, queue string) (int64, error)
	// Quarantined returns up to limit quarantined messages of a queue, newest first.
	Quarantined(ctx context.Context, queue string, limit int) ([]QuarantinedMessage, error)
	// PurgeQuarantine removes a queue's quarantined messages and tells how many there were.
	PurgeQuarantine(ctx context.Context, queue string) (int64, error)
}

// BindingLister tells which queues are bound to which exchanges: Celery's `celery list bindings`. Drivers that can, implement it
// beside Transport.
type BindingLister interface {
	// Bindings are all that the broker knows, those of remote control included, by queue, exchange and routing key.
	Bindings(ctx context.Context) ([]BoundQueue, error)
}

// BoundQueue is a queue with one of its bindings.
type BoundQueue struct {
	Queue      string `json:"queue"`
	Exchange   string `json:"exchange"` // "": AMQP's default exchange
	RoutingKey string `json:"routing_key"`
}

// SortBindings puts bindings in their order, each once.
func SortBindings(all []BoundQueue) []BoundQueue {
	slices.SortFunc(all, func(a, b BoundQueue) int {
		return cmp.Or(strings.Compare(a.Queue, b.Queue), strings.Compare(a.Exchange, b.Exchange), strings.Compare(a.RoutingKey, b.RoutingKey))
	})
	return slices.Compact(all)
}

// Pinger is a Transport that can be asked whether its broker answers, as often as somebody likes to know. Drivers that can,
// implement it beside Transport.
type Pinger interface {
	// Ping asks the broker something that costs it next to nothing, whatever it holds. An error says why there is no
	// answer, at the latest when ctx is done.
	Ping(ctx context.Context) error
}

// Depth is the state of one queue.
type Depth struct {
	Queue       string        `json:"queue"`
	Messages    int64         `json:"messages"` // waiting, over all priorities
	ByPriority  map[int]int64 `json:"by_priority,omitempty"`
	Unacked     int64         `json:"unacked"` // received and not settled, by anyone; -1 where the broker cannot tell
	Delayed     int64         `json:"delayed"` // left with the broker until their eta (see Delayer); -1 where it cannot tell
	Quarantined int64         `json:"quarantined"`
	// Error says in one line what could not be read, the key named, and why; the numbers that depend on it are -1.
	Error string `json:"error,omitempty"`
}

// QuarantinedMessage is a message that could not be handled.
type QuarantinedMessage struct {
	Time   time.Time
	Queue  string
	Reason string
	Raw    []byte // as Delivery.Raw
	// Properties is what belongs to the message and is not in Raw, as one JSON object: on RabbitMQ its AMQP properties,
	// with the application headers as "headers". nil on Redis, where all is in Raw.
	Properties json.RawMessage
}

// Administrator is who makes and removes what messages travel through: the commands of Celery's `celery amqp`. Drivers
// that can, implement it beside Transport.
type Administrator interface {
	DeclareExchange(ctx context.Context, x Exchange) error
	// DeleteExchange removes an exchange with its bindings. ifUnused: not while something is bound to it.
	DeleteExchange(ctx context.Context, name string, ifUnused bool) error
	Bind(ctx context.Context, queue string, b Binding) error
	Unbind(ctx context.Context, queue string, b Binding) error
	// DeleteQueue removes a queue with its messages, delayed ones as in Purge, and its bindings, and tells how many
	// messages there were. With ifUnused not while somebody consumes from it, with ifEmpty not while messages wait.
	DeleteQueue(ctx context.Context, name string, ifUnused, ifEmpty bool) (int64, error)
}

// Exchange is an exchange without a queue.
type Exchange struct {
	Name       string
	Type       string // "direct" (default), "topic", "fanout"
	Transient  bool
	AutoDelete bool
	Arguments  map[string]any
}

// Examiner looks for what keeps a broker from being a good one: `gelery doctor`. Drivers that can, implement it beside
// Transport.
type Examiner interface {
	// Examine reports what it found, the most fundamental first. Queues are those the operator asks about; empty: all
	// that the broker tells of. An error means that the examination itself failed.
	Examine(ctx context.Context, queues []string) ([]Finding, error)
}

// Finding is the answer to one question about a broker.
type Finding struct {
	Subject string `json:"subject"` // what was looked at: "version", "queue celery"
	Health  Health `json:"health"`
	Detail  string `json:"detail"`           // what was found, in one line
	Advice  string `json:"advice,omitempty"` // what to do about it
}

// Health is how good or bad a finding is.
type Health string

const (
	Healthy  Health = "ok"
	Doubtful Health = "warning" // works, and may cost messages or time one day
	Broken   Health = "error"   // does not work, or loses messages
	Unknown  Health = "unknown" // could not be found out
)
