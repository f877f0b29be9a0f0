package rabbitmq

import (
	"context"
	"errors"

	"github.com/gelery/gelery/transport"
)

var errLost = errors.New("its channel is lost; the broker gives it to somebody again")

// Delay implements transport.Delayer: messages are sent by way of Celery's delay queues back to their own queue, and
// acknowledged when the broker has the copies. One whose channel is lost in between comes twice.
func (c *consumer) Delay(ctx context.Context, batch []transport.Delayed) (kept []transport.Delayed, err error) {
	var sending []settling
	var from []transport.Delayed
	var out []*outbound
	for _, d := range batch {
		h := c.leave(d.Delivery.Tag)
		if h == nil {
			kept, err = append(kept, d), errors.Join(err, errLost)
			continue
		}
		s := settling{transport.Settlement{Delivery: d.Delivery}, h}
		key, e := c.t.returnAddress(ctx, c.link, c.queues[h.queue].queue)
		if e != nil {
			c.keep([]settling{s})
			kept, err = append(kept, d), errors.Join(err, e)
			continue
		}
		m := republishing(&h.Delivery)
		m.Expiration = "" // it would end its wait too early; the expires header is there for whoever gets it
		out = append(out, &outbound{exchange: levelName(delayLevels - 1), key: delayKey(d.After, key), message: m})
		sending, from = append(sending, s), append(from, d)
	}
	if len(out) == 0 {
		return kept, err
	}
	if _, e := c.t.publisher.publish(ctx, out); e != nil {
		if errors.Is(e, transport.ErrNoRoute) { // somebody has removed the topology
			c.t.delays.forget("")
		}
		c.keep(sending)
		return append(kept, from...), errors.Join(err, e)
	}
	c.apply(sending)
	return kept, err
}

// leave begins to settle a live delivery; nil if there is none.
func (c *consumer) leave(tag string) *held {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.held[tag]
	if h == nil || h.leaving || h.epoch == nil {
		return nil
	}
	h.leaving = true
	return h
}
