package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math"
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

// settling is one delivery of a batch on its way.
type settling struct {
	transport.Settlement
	*held
}

// Settle implements transport.Consumer. An acknowledgement has no answer in AMQP: it is on its way when Settle returns,
// in order with all others of the channel. Those whose channel is lost are counted as lost.
func (c *consumer) Settle(ctx context.Context, batch []transport.Settlement) (lost int, err error) {
	settle := make([]settling, 0, len(batch))
	var aside []settling
	c.mu.Lock()
	for _, s := range batch {
		h := c.held[s.Delivery.Tag]
		switch {
		case h == nil || h.leaving:
			lost++
		case h.epoch == nil:
			delete(c.held, s.Delivery.Tag)
			c.orphans.settled(h, s)
			lost++
		default:
			h.leaving = true
			if s.Verdict == transport.Quarantine {
				aside = append(aside, settling{s, h})
			} else {
				settle = append(settle, settling{s, h})
			}
		}
	}
	c.mu.Unlock()
	if len(aside) > 0 {
		var moved []settling
		moved, err = c.quarantine(ctx, aside)
		settle = append(settle, moved...)
	}
	return lost + c.apply(settle), err
}

// keep holds on to deliveries that could not be settled.
func (c *consumer) keep(batch []settling) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range batch {
		s.leaving = false
		if s.epoch.dead {
			s.epoch = nil
			c.orphans.add(s.held)
		}
	}
}

// apply tells the broker what is to become of leaving deliveries, and returns how many it could not be told of.
func (c *consumer) apply(batch []settling) (lost int) {
	for len(batch) > 0 {
		n := 1
		for n < len(batch) && batch[n].epoch == batch[0].epoch {
			n++
		}
		lost += c.tell(batch[0].epoch, batch[:n])
		batch = batch[n:]
	}
	return lost
}

// tell writes the verdicts on deliveries of one channel, in one go.
//
// All that is acknowledged and older than anything still held is acknowledged in one frame. It saves the broker more
// than a tenth of what a task costs it. Nobody may decide the same at the same time: between the decision and its
// writing, nothing may be settled in another way.
func (c *consumer) tell(e *epoch, batch []settling) (lost int) {
	e.telling.Lock()
	defer e.telling.Unlock()
	oldest := c.oldest(e, batch)
	e.session.socket.cork()
	var together uint64
	failed := false
	for _, s := range batch {
		switch tag := s.DeliveryTag; {
		case s.Verdict == transport.Requeue || s.Verdict == transport.Return:
			failed = e.channel.Reject(tag, true) != nil || failed // Celery's way, never basic.nack
		case s.Verdict == transport.Reject:
			failed = e.channel.Reject(tag, false) != nil || failed
		case tag < oldest:
			together = max(together, tag)
		}
	}
	if together > 0 {
		failed = e.channel.Ack(together, true) != nil || failed
	}
	for _, s := range batch {
		if s.Verdict == transport.Ack && s.DeliveryTag > together {
			failed = e.channel.Ack(s.DeliveryTag, false) != nil || failed
		}
	}
	if err := e.session.socket.uncork(); err != nil {
		_ = e.session.socket.Close() // the broker will give back what it was not told of
		failed = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range batch {
		delete(c.held, s.Settlement.Delivery.Tag)
		if failed { // the channel is closed, and some of it may have been too late
			c.orphans.settled(s.held, s.Settlement)
			lost++
		}
	}
	return lost
}

// oldest is the lowest tag of a channel that stays unsettled when the batch is.
func (c *consumer) oldest(e *epoch, batch []settling) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range batch {
		s.settled = true
	}
	oldest := uint64(math.MaxUint64) // what has not come yet has a higher tag than all that has
	for _, h := range c.held {
		if h.epoch == e && !h.settled {
			oldest = min(oldest, h.DeliveryTag)
		}
	}
	for _, list := range c.waiting {
		if len(list) > 0 && list[0].epoch == e {
			oldest = min(oldest, list[0].DeliveryTag)
		}
	}
	return oldest
}

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
