package rabbitmq

import (
	"context"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// Worth implements transport.Delayer. The prefetch of a queue whose consumer has to stay is not widened for what is held.
func (c *consumer) Worth(d *transport.Delivery) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.held[d.Tag]; h == nil || h.intake.stays() {
		return time.Second
	}
	return max(c.t.options.delayFrom, time.Second)
}

// Delay implements transport.Delayer: messages are sent by way of Celery's delay queues back to their own queue, and
// acknowledged when the broker has the copies. One whose channel is lost in between comes twice, and so does one whose
// copy is in doubt when ctx ends. One whose channel is lost before is let go: the broker gives it to somebody again, who
// delays it. While the broker is known to take no messages, none is sent.
func (c *consumer) Delay(ctx context.Context, batch []transport.Delayed) (kept []transport.Delayed, err error) {
	if blocked, _ := c.t.publishes.flow(); blocked {
		return batch, transport.ErrBrokerFull
	}
	addresses := make(map[*intake]address, 1)
	var sending []settling
	var from []transport.Delayed
	var out []*outbound
	for _, d := range batch {
		h := c.leave(d.Delivery)
		if h == nil {
			continue
		}
		s := settling{transport.Settlement{Delivery: d.Delivery}, h}
		a, asked := addresses[h.intake]
		if !asked {
			a.key, a.err = c.t.returnAddress(ctx, c.link, h.intake.queue)
			addresses[h.intake] = a
			err = errors.Join(err, a.err)
		}
		if a.err != nil {
			c.keep([]settling{s})
			kept = append(kept, d)
			continue
		}
		m := postponed(h, d.Delivery.Redelivered)
		out = append(out, &outbound{exchange: levelName(delayLevels - 1), key: delayKey(d.After, a.key), message: m})
		sending, from = append(sending, s), append(from, d)
	}
	if len(out) == 0 {
		return kept, err
	}
	if e := c.sendAnew(ctx, sending, out); e != nil {
		if errors.Is(e, transport.ErrNoRoute) { // somebody has removed the topology
			c.t.delays.forget("")
		}
		return append(kept, from...), errors.Join(err, e)
	}
	return kept, err
}

// markRoom is what the header that postponed adds takes in a table, at most.
const markRoom = 64

// postponed is the message of a delivery to be delayed. That it was handed out before is noted in it, or one that ends every
// worker which begins it would come back as if it had never been begun. Where headers leave no room for that, it does.
func postponed(h *held, redelivered bool) amqp.Publishing {
	var mark []tableEntry
	if raw, _ := rawTable(h.Headers); redelivered && len(raw)+markRoom <= maxTable {
		mark = []tableEntry{{protocol.RedeliveredHeader, int64(1)}}
	}
	m := republishing(&h.Delivery, mark...)
	m.Expiration = "" // it would end its wait too early; the expires header is there for whoever gets it
	return m
}

// sendAnew publishes what is to take the place of leaving deliveries, and acknowledges them when the broker has all of
// it. Otherwise they are kept. How often work on them has begun stays noted: it is the same for the copies.
func (c *consumer) sendAnew(ctx context.Context, batch []settling, out []*outbound) error {
	if _, err := c.t.publisher.publish(ctx, out); err != nil {
		c.keep(batch)
		return err
	}
	for _, s := range batch {
		s.begun = begun{}
	}
	c.apply(batch)
	return nil
}

// address is where the delayed messages of a queue come back to, or why they cannot.
type address struct {
	key string
	err error
}

// leave begins to settle a live delivery. nil: its channel is lost, and it is forgotten, to be new when it comes again.
func (c *consumer) leave(d *transport.Delivery) *held {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.held[d.Tag]
	switch {
	case h == nil || h.leaving:
		return nil
	case h.epoch == nil:
		delete(c.held, d.Tag)
		c.orphans.settled(h, transport.Settlement{Delivery: d, Verdict: transport.Return})
		return nil
	}
	h.leaving = true
	return h
}
