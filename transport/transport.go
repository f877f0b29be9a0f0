// Package transport is how messages travel: the contract every broker driver keeps, and the registry that opens one
// by URL. transporttest is the contract as tests.
package transport

import (
	"context"
	"time"

	"github.com/gelery/gelery/protocol"
)

// Transport is one process's connection to a broker. All methods may be called concurrently. A driver reconnects by
// itself, with back-off, for as long as the context of the call lives: a lost connection, a restart, a failover or a
// read-only replica is never an error of its own, only its outlasting the context is.
type Transport interface {
	// Publish hands the batch to the broker and returns when the broker has all of it. A message without a
	// DeliveryTag gets one. Publishing again after a lost reply must not double a message. On failure the error is
	// or wraps a *PublishError, which says whether the messages may have arrived.
	Publish(ctx context.Context, batch []Publication) error

	// Declare makes the queue exist with its exchange and binding, as Celery declares it. It is idempotent.
	Declare(ctx context.Context, q Queue) error

	// Consume starts to receive from the queues. They are declared first.
	Consume(ctx context.Context, o ConsumeOptions) (Consumer, error)

	// Broadcast sends a message to whoever subscribes to the fanout exchange at this moment, and to nobody later.
	Broadcast(ctx context.Context, exchange, routingKey string, m *protocol.Message) error

	// Subscribe listens to a fanout exchange. The pattern is a binding key: "worker.#" matches "worker.online", ""
	// matches messages without a routing key. When it returns, the subscription is in force.
	Subscribe(ctx context.Context, exchange, pattern string) (Subscription, error)

	// Close ends the connection. Consumers must be closed before.
	Close(ctx context.Context) error
}

// Publication is a message on its way to an exchange. Exchange "" is AMQP's default exchange: RoutingKey is the name
// of the queue.
type Publication struct {
	Message    *protocol.Message
	Exchange   string
	RoutingKey string
}

// Queue is a queue with the one binding Celery gives it. A zero Exchange, ExchangeType and RoutingKey mean Celery's
// default: a direct exchange and a key of the queue's own name.
type Queue struct {
	Name         string
	Exchange     string
	ExchangeType string // "direct" (default), "topic", "fanout"
	RoutingKey   string
	Arguments    map[string]any // x-max-priority and the like; a driver ignores what it has no use for
}

// ConsumeOptions says what to receive.
type ConsumeOptions struct {
	Queues []Queue
	// Prefetch is the most deliveries the consumer will hold unsettled, for drivers that must tell the broker. 0: no
	// bound of the driver's own; Receive's max still holds.
	Prefetch int
}

// Consumer receives from a set of queues and settles what it received. Receive is called by one goroutine at a time;
// Settle by any number, also while Receive waits.
//
// Between Receive and Settle the driver keeps the delivery alive (renews its lease, watches its connection): a live
// process never loses a delivery to another one, however long it holds it, and a dead one loses all of them soon.
type Consumer interface {
	// Receive waits until at least one delivery is there and returns at most max, in the order of the queue. It
	// returns an error only when ctx is done or the consumer is closed.
	//
	// A message that cannot be decoded is a delivery too, with Err set: the worker decides, the driver never drops.
	Receive(ctx context.Context, max int) ([]Delivery, error)

	// Settle tells the broker what became of the deliveries, each in its own way, as one batch. Every delivery is
	// settled once. It retries until ctx is done. Deliveries the broker has meanwhile given to someone else are
	// skipped, and counted in lost: their tasks may run twice.
	Settle(ctx context.Context, batch []Settlement) (lost int, err error)

	// Close stops receiving and gives everything unsettled back to the front of its queue.
	Close(ctx context.Context) error
}

// Delivery is one received message.
type Delivery struct {
	Tag         string // the consumer's handle for Settle, unique within the consumer
	Queue       string // where it was received
	Message     *protocol.Message
	Redelivered bool   // the broker has handed it out before
	Raw         []byte // what the broker held, for quarantine and logs; read only
	Err         error  // not nil: Raw could not be decoded and Message is nil or incomplete
}

// Verdict is what becomes of a delivery.
type Verdict int

const (
	// Ack removes it: the work is done.
	Ack Verdict = iota
	// Requeue puts it at the back of its queue, marked redelivered (basic.reject with requeue in Celery's words).
	Requeue
	// Return puts it back at the front of its queue, marked redelivered: what a stopping worker does with what it
	// has not finished.
	Return
	// Reject removes it without requeue; a broker with dead-letter exchanges dead-letters it.
	Reject
	// Quarantine moves it aside with its bytes and the reason, where Inspector.Quarantined finds it.
	Quarantine
)

// Settlement is a verdict on one delivery.
type Settlement struct {
	Delivery *Delivery
	Verdict  Verdict
	Reason   string // for Quarantine: why, in one line
}

// Subscription is an open ear on a fanout exchange.
type Subscription interface {
	// Receive waits for the next message. A message that cannot be decoded has its Err set.
	Receive(ctx context.Context) (Delivery, error)
	Close() error
}

// Inspector is what an operator asks of a broker. Drivers that can, implement it beside Transport.
type Inspector interface {
	// Depths tells how many messages wait in each queue, by priority where the broker tells.
	Depths(ctx context.Context, queues []string) ([]Depth, error)
	// Queues lists the names of the queues the broker knows, sorted.
	Queues(ctx context.Context) ([]string, error)
	// Purge removes all waiting messages of a queue and tells how many there were.
	Purge(ctx context.Context, queue string) (int64, error)
	// Quarantined returns up to limit quarantined messages of a queue, newest first.
	Quarantined(ctx context.Context, queue string, limit int) ([]QuarantinedMessage, error)
	// PurgeQuarantine removes a queue's quarantined messages and tells how many there were.
	PurgeQuarantine(ctx context.Context, queue string) (int64, error)
}

// Depth is the state of one queue.
type Depth struct {
	Queue       string        `json:"queue"`
	Messages    int64         `json:"messages"` // waiting, over all priorities
	ByPriority  map[int]int64 `json:"by_priority,omitempty"`
	Unacked     int64         `json:"unacked"` // received and not settled, by anyone; -1 where the broker cannot tell
	Quarantined int64         `json:"quarantined"`
	// Error says in one line what could not be read, the key named, and why; the numbers that depend on it are -1.
	Error string `json:"error,omitempty"`
}

// QuarantinedMessage is a message that could not be handled.
type QuarantinedMessage struct {
	Time   time.Time
	Queue  string
	Reason string
	Raw    []byte
}
