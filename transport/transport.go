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
	// DeliveryTag gets one. What is published again after a lost reply is not doubled where the broker can tell (Redis);
	// where it cannot (RabbitMQ), a message whose confirmation got lost with its connection may arrive twice. On failure
	// the error is or wraps a *PublishError, which says whether the messages may have arrived.
	Publish(ctx context.Context, batch []Publication) error

	// Declare makes the queue exist with its exchange and binding, as Celery declares it. It is idempotent. A queue or
	// exchange that exists with other properties is an error that wraps ErrMismatch.
	Declare(ctx context.Context, q Queue) error

	// Consume starts to receive from the queues. They are declared first.
	Consume(ctx context.Context, o ConsumeOptions) (Consumer, error)

	// Broadcast sends a message to whoever subscribes to the fanout exchange at this moment, and to nobody later. It is sent
	// once: where it is not known whether it has arrived, the error wraps a *PublishError that says so.
	Broadcast(ctx context.Context, exchange, routingKey string, m *protocol.Message) error

	// Subscribe listens to a fanout exchange. The pattern is a binding key: "worker.#" matches "worker.online", ""
	// matches messages without a routing key. When it returns, the subscription is in force. What is published to the
	// exchange of remote control's replies is heard the same way, with the routing key as the pattern.
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
	// Delay is how long the broker keeps the message before it routes it, in whole seconds, rounded down: Celery's
	// native delayed delivery. The queues it is for must have been declared with Delayed. A broker that cannot delay
	// ignores it, and whoever receives the message waits for its eta.
	Delay time.Duration
	// Once: the broker drops the message if it has taken one with the same task id for the same queue within the last
	// quarter of an hour. A broker that cannot tell ignores it (only Redis can): then it is there twice, with one id.
	Once bool
	// Optional: nobody need get it. A message for which there is no queue is dropped without an error.
	Optional bool
}

// MaxDelay is the longest Delay: Celery counts it in 28 bits, about eight and a half years. What is to rest longer comes
// back after it and is delayed again.
const MaxDelay = (1<<28 - 1) * time.Second

// Queue is a queue with its exchange and bindings: kombu's Queue. A zero Exchange, ExchangeType and RoutingKey mean
// Celery's default: a direct exchange and a key of the queue's own name. A driver ignores what its broker has no notion of.
type Queue struct {
	Name         string
	Exchange     string
	ExchangeType string // "direct" (default), "topic", "fanout"
	RoutingKey   string
	Bindings     []Binding      // further ones beside the one above; kombu's bindings replace it: Unbound with Bindings
	Arguments    map[string]any // x-max-priority, x-queue-type, x-dead-letter-exchange and the like

	Transient  bool // gone when the broker restarts (durable=False in kombu)
	AutoDelete bool // gone with its last consumer
	Exclusive  bool // this connection's alone, and gone with it
	Unbound    bool // without exchange and binding: reached by its name only, as reply queues are

	// Broadcast: every consumer has a queue of its own, bcast.<uuid>, gone with it, and gets every message sent to the
	// fanout exchange. Name is the name callers use, Celery's alias. Declare makes only the exchange.
	Broadcast bool
	// Delayed: the queue can be reached by a Publication with a Delay.
	Delayed bool
}

// Binding ties a queue to an exchange.
type Binding struct {
	Exchange     string
	ExchangeType string // "direct" (default), "topic", "fanout"
	RoutingKey   string
	Arguments    map[string]any
}

// ConsumeOptions says what to receive.
type ConsumeOptions struct {
	Queues []Queue
	// Prefetch is the most deliveries the consumer will hold unsettled, for drivers that must tell the broker: of each
	// queue, and about, since what is parked (see Parker) does not count. 0: no bound of the driver's own; Receive's max
	// still holds.
	Prefetch int
}

// Consumer receives from a set of queues and settles what it received. Receive is called by one goroutine at a time;
// Settle by any number, also while Receive waits.
//
// Between Receive and Settle the driver keeps the delivery alive (renews its lease, watches its connection): on Redis a
// live process never loses a delivery to another one, however long it holds it; on RabbitMQ it loses them with its
// connection, or when it holds one longer than the broker's consumer_timeout. A dead process loses all of them soon.
type Consumer interface {
	// Receive waits until at least one delivery is there and returns at most max, in the order of the queue. It
	// returns an error only when ctx is done or the consumer is closed.
	//
	// A message that cannot be decoded is a delivery too, with Err set: the worker decides, the driver never drops.
	Receive(ctx context.Context, max int) ([]Delivery, error)

	// Settle tells the broker what became of the deliveries, each in its own way, as one batch. On Redis it retries
	// until ctx is done. AMQP has no answer to an acknowledgement: on RabbitMQ it is on its way when Settle returns, and
	// what cannot be put in quarantine within seconds stays with the driver, which tries again until Close. Deliveries
	// the broker has taken back meanwhile are skipped, and counted in lost: their tasks may run twice where somebody
	// else gets them. One that is settled need not be settled again; one that is not, because of err, may be.
	Settle(ctx context.Context, batch []Settlement) (lost int, err error)

	// Add starts to receive from one more queue, which is declared first; one that it receives from already is left
	// alone. Celery's add_consumer.
	Add(ctx context.Context, q Queue) error

	// Cancel stops receiving from a queue. What has been received from it is held and settled as before; what the driver
	// has of it and has not handed out goes back. A queue that it does not receive from is no error. With an error it may
	// be cancelled or not; either way Add receives from it, and Cancel can be called again. Celery's cancel_consumer.
	Cancel(ctx context.Context, queue string) error

	// Begin notes with the broker, before its task runs, that work begins on a delivery that was handed out before
	// (Redelivered), so that a message which ends every worker that begins it can be told from others: it counts in the
	// header protocol.AttemptsHeader, which d has then. A broker that cannot change what it holds counts beside the message:
	// what is received has no count. One that the broker has taken back already is let go, with ErrTakenBack: it comes by
	// itself, here or elsewhere, and must not be run. With any other error the delivery is held as before; the count may be
	// there or not.
	Begin(ctx context.Context, d *Delivery) error

	// Close stops receiving and gives everything unsettled back to the front of its queue.
	Close(ctx context.Context) error
}

// Delivery is one received message.
type Delivery struct {
	Tag         string // the consumer's handle for Settle, unique within the consumer
	Queue       string // where it was received
	Message     *protocol.Message
	Redelivered bool   // the broker has handed it out before
	Raw         []byte // what the broker held, for logs: the envelope on Redis, the body on RabbitMQ; read only
	Err         error  // not nil: Raw could not be decoded and Message is nil or incomplete
}

// Verdict is what becomes of a delivery.
type Verdict int

const (
	// Ack removes it: the work is done.
	Ack Verdict = iota
	// Requeue gives it back to its queue, marked redelivered: basic.reject with requeue, as Celery does it. That is the
	// back of the queue on Redis, and on RabbitMQ about where it was, but behind what the consumer has already.
	Requeue
	// Return puts it back at the front of its queue, marked redelivered: what a stopping worker does with what it
	// has not finished; what Begin has counted of this delivery is taken back. Until it has closed, it may get it again. A quorum queue promises no order among such messages.
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
	// Undone: it is acknowledged before its task has run. If that is too late, the task is not to be run, and the
	// message that comes again is a new one.
	Undone bool
}

// Parker is a Consumer whose broker bounds how much it has in hand, by ConsumeOptions.Prefetch.
type Parker interface {
	// Park tells that deliveries are held for a later time, and should not count until they are settled. It does not
	// wait for the broker.
	Park(batch []*Delivery)
}

// Quarantiner is a Consumer that can put a message in quarantine which it does not hold any more, because it was
// acknowledged early.
type Quarantiner interface {
	// Quarantine puts a copy of the delivery's message aside, as the verdict Quarantine does. With an error it may be there.
	Quarantine(ctx context.Context, d *Delivery, reason string) error
}

// Prefetcher is a Consumer whose bound, ConsumeOptions.Prefetch, can be changed while it receives.
type Prefetcher interface {
	// SetPrefetch changes the bound, to at least 1. It does not wait for the broker, and what is in hand already stays.
	SetPrefetch(n int)
}

// Attached is a Consumer that knows whether its broker hands it messages now.
type Attached interface {
	// Attached says why nothing comes from one of the queues, nil if all are received from. It does not wait for the broker.
	Attached() error
}

// Delayer is a Consumer whose broker can keep a message until its time has come, so that the worker need not hold it.
type Delayer interface {
	// Delay gives the deliveries back to the broker, each to be received again from its own queue after its time, up to
	// a second early and never late by more than the broker's own delay. It is not Redelivered for that, but stays so if it was,
	// until Begin counts it. They are settled
	// then, and the consumer may close or die: they come all the same. Those it returns could not be delayed, and err says
	// why; they are still held. One that the broker has taken back already is let go: it comes again by itself.
	Delay(ctx context.Context, batch []Delayed) (kept []Delayed, err error)
	// Worth is the least time for which a delivery had better be given back, at least a second: for less it is cheaper to
	// hold it.
	Worth(d *Delivery) time.Duration
}

// Delayed is a delivery with the time it should come back after, at least a second.
type Delayed struct {
	Delivery *Delivery
	After    time.Duration
}

// Subscription is an open ear on a fanout exchange.
type Subscription interface {
	// Receive waits for the next message. A message that cannot be decoded has its Err set.
	Receive(ctx context.Context) (Delivery, error)
	Close() error
}
