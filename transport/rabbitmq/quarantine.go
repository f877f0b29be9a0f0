package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/transport"
)

// Headers of a message in quarantine, beside its own.
const (
	reasonHeader = "x-gelery-reason"
	timeHeader   = "x-gelery-time" // RFC 3339, UTC
)

// quarantineName is the queue that bad messages of a queue are moved to. It is a queue like any other: it can be read,
// shovelled and purged with RabbitMQ's own tools.
func quarantineName(queue string) string { return "_gelery.quarantine." + queue }

// quarantine copies messages to where an operator finds them and returns those that are safe there; they can be
// acknowledged. A message that may not be put there stays held, and the log says so: it is lost to nobody, and comes
// back when this consumer is closed.
func (c *consumer) quarantine(ctx context.Context, batch []settling) (moved []settling, err error) {
	now := time.Now().UTC().Format(time.RFC3339Nano)
	byQueue := make(map[int][]settling, 1)
	for _, s := range batch {
		byQueue[s.queue] = append(byQueue[s.queue], s)
	}
	for i, list := range byQueue {
		name := quarantineName(c.queues[i].alias)
		out := make([]*outbound, len(list))
		for j, s := range list {
			m := republishing(&s.held.Delivery, tableEntry{reasonHeader, s.Reason}, tableEntry{timeHeader, now})
			m.Expiration, m.DeliveryMode = "", amqp.Persistent
			out[j] = &outbound{key: name, message: m}
		}
		if e := c.setAside(ctx, i, name, out); e != nil {
			c.log.Error("bad messages cannot be put in quarantine; they are held until this worker stops",
				"queue", c.queues[i].alias, "messages", len(list), "error", e)
			err = errors.Join(err, fmt.Errorf("quarantine of queue %q: %w", c.queues[i].alias, e))
			c.keep(list)
			continue
		}
		for _, s := range list {
			s.Verdict = transport.Ack // the copy is safe
			moved = append(moved, s)
		}
	}
	return moved, err
}

// lookLimit is how often a quarantined message may be looked at: a quorum queue counts each time as a delivery, and
// drops what has been delivered more often than its limit, from RabbitMQ 4 on after twenty times unless told otherwise.
const lookLimit = 1_000_000

// setAside publishes to a quarantine queue, which is of the type of the queue it serves. One that was removed meanwhile
// is made again.
func (c *consumer) setAside(ctx context.Context, i int, name string, out []*outbound) error {
	for attempt := 0; ; attempt++ {
		err := c.t.aside.once(ctx, c.link, name, func() error {
			arguments := amqp.Table{}
			if c.queues[i].arguments["x-queue-type"] == "quorum" {
				arguments["x-queue-type"], arguments["x-delivery-limit"] = "quorum", int64(lookLimit)
			}
			return c.link.onChannel(ctx, func(ch *amqp.Channel) error {
				_, err := ch.QueueDeclare(name, true, false, false, false, arguments)
				return err
			})
		})
		if errors.Is(err, transport.ErrMismatch) {
			err = nil // it is there, and that is enough
		}
		if err == nil {
			_, err = c.t.publisher.publish(ctx, out)
		}
		if err == nil || attempt > 0 || !errors.Is(err, transport.ErrNoRoute) {
			return err
		}
		c.t.aside.forget(name)
	}
}
