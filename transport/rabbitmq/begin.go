package rabbitmq

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/transport"
)

// A message cannot be changed in AMQP, so how often work on it has begun is noted beside it: in a queue of its own with one
// small message for each beginning. It is made when work begins on what was handed out before, and removed when that is
// settled; what a worker that died leaves there is what the next one reads. Where Python ends the task, the queue ends by
// itself.
const (
	begunPrefix = "_gelery.begun."
	// begunLife is how long the count of a message rests unused before it is forgotten.
	begunLife = 24 * time.Hour
	// beginPatience is how long the broker may take to count.
	beginPatience = 10 * time.Second
	// maxUncounted bounds the counts that wait to be removed. What is too much ends by itself.
	maxUncounted = 10_000
)

// begun is what Begin has noted of a delivery that is held.
type begun struct {
	queue string // where; "": nothing is noted
	times int    // messages in it
}

// begunName is the queue in which the beginnings of a message are noted. It is the same for whoever gets the message.
func begunName(h *held) string {
	hash := sha256.New()
	if m := h.delivery.Message; m != nil {
		_, _ = fmt.Fprintf(hash, "%d:%s", len(m.Headers.ID), m.Headers.ID)
		_, _ = hash.Write(binary.BigEndian.AppendUint64(nil, uint64(m.Headers.Retries)))
	}
	_, _ = hash.Write(h.Body)
	sum := hex.EncodeToString(hash.Sum(nil)[:16])
	return fitting(begunPrefix+h.intake.alias, maxName-1-len(sum)) + "." + sum
}

// Begin implements transport.Consumer. With an error the beginning may be noted or not, and the message is held as it was.
// While the broker takes no messages, that is ErrBrokerFull at once.
func (c *consumer) Begin(ctx context.Context, d *transport.Delivery) error {
	if blocked, _ := c.t.publishes.flow(); blocked {
		return transport.ErrBrokerFull
	}
	if d.Message == nil {
		return fmt.Errorf("begin: the message could not be decoded: %w", d.Err)
	}
	h := c.leave(d)
	if h == nil {
		return transport.ErrTakenBack
	}
	name := begunName(h)
	ctx, cancel := context.WithTimeout(ctx, beginPatience)
	defer cancel()
	times, err := c.t.count(ctx, name, d.Message.Headers.ID)
	if err == nil {
		h.begun = begun{name, times}
		m := *d.Message
		m.Headers.SetAttempts(times)
		d.Message = &m
	}
	c.keep([]settling{{transport.Settlement{Delivery: d}, h}})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	return nil
}

// count notes one more beginning, with the task's id for whoever looks, and returns how many there are. Over the connection
// that publishes, because an alarm stops all that comes over one which has.
func (t *rabbitTransport) count(ctx context.Context, name, id string) (times int, err error) {
	arguments := amqp.Table{"x-queue-type": "classic", "x-expires": begunLife.Milliseconds()}
	before := -1
	err = t.publishes.onChannel(ctx, func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclare(name, true, false, false, false, arguments)
		if err != nil {
			return err
		}
		if before < 0 {
			before = q.Messages
		}
		if times = before + 1; q.Messages >= times {
			return nil // the confirmation got lost with its connection
		}
		if err := ch.Confirm(false); err != nil {
			return err
		}
		confirmation, err := ch.PublishWithDeferredConfirm("", name, false, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(id)})
		if err != nil {
			return err
		}
		taken, err := confirmation.WaitContext(ctx)
		switch {
		case err != nil || taken:
			return err
		case ch.IsClosed(): // which amqp091-go tells like a refusal
			return amqp.ErrClosed
		}
		return transport.ErrRefused
	})
	return times, err
}

// takeBack takes back the last beginning of deliveries that a stop gives back, before the broker is told, so that whoever
// gets them next does not count it: a stop is no failed attempt.
func (c *consumer) takeBack(ctx context.Context, batch []begun) {
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, closeGrace)
	defer cancel()
	err := c.forget(ctx, batch, func(ch *amqp.Channel, b begun) error {
		if b.times > 1 {
			_, _, err := ch.Get(b.queue, true)
			return err
		}
		_, err := ch.QueueDelete(b.queue, false, false, false)
		return err
	})
	if err != nil {
		c.log.Warn("what a stop gives back counts as begun", "messages", len(batch), "error", err)
	}
}

// begunOf takes what Begin has noted of deliveries that are held.
func (c *consumer) begunOf(held iter.Seq[*held]) (list []begun) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for h := range held {
		if h.begun.queue != "" {
			list = append(list, h.begun)
			h.begun = begun{}
		}
	}
	return list
}

// uncount makes the actor remove what Begin has noted of a delivery that is settled. The caller holds mu.
func (c *consumer) uncount(h *held) {
	if h.begun.queue == "" || len(c.uncounted) >= maxUncounted {
		return
	}
	c.uncounted = append(c.uncounted, h.begun)
	h.begun = begun{}
	select {
	case c.uncountable <- struct{}{}:
	default:
	}
}

// tidy is the actor that removes the counts of what is settled, so that nothing waits for it. When ctx is done it removes
// what is left.
func (c *consumer) tidy(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-c.uncountable:
			c.tidyAll(ctx, openPause)
		case <-ctx.Done():
		}
	}
	c.tidyAll(context.WithoutCancel(ctx), closeGrace)
}

// tidyAll removes all counts that wait, within a time.
func (c *consumer) tidyAll(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		c.mu.Lock()
		list := c.uncounted
		c.uncounted = nil
		c.mu.Unlock()
		if len(list) == 0 {
			return
		}
		err := c.forget(ctx, list, func(ch *amqp.Channel, b begun) error {
			_, err := ch.QueueDelete(b.queue, false, false, false)
			return err
		})
		if err != nil {
			c.log.Warn("how often work on messages has begun rests with the broker until it is forgotten there", "messages", len(list), "error", err)
			return
		}
	}
}

// forget changes counts, one after the other. One that is there no more closes the channel, and the next ones get another.
func (c *consumer) forget(ctx context.Context, list []begun, change func(*amqp.Channel, begun) error) error {
	for len(list) > 0 {
		err := c.link.onChannel(ctx, func(ch *amqp.Channel) error {
			for ; len(list) > 0; list = list[1:] {
				if err := change(ch, list[0]); err != nil {
					return err
				}
			}
			return nil
		})
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, errNotFound):
			return err
		}
		list = list[1:]
	}
	return nil
}
