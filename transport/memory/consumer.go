package memory

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// consumer receives from queues of the process's own broker. Its fields are guarded by the broker's mu.
type consumer struct {
	b      *broker
	queues []string
	rotate int
	tags   int
	held   map[string]held
	closed chan struct{}
}

type held struct {
	it    item
	queue string
	seq   int
	begun int // the count that Begin has made; 0: it has not
}

// Consume implements transport.Transport.
func (t memoryTransport) Consume(ctx context.Context, o transport.ConsumeOptions) (transport.Consumer, error) {
	if len(o.Queues) == 0 {
		return nil, errors.New("no queue to consume from")
	}
	c := &consumer{b: t.b, held: map[string]held{}, closed: make(chan struct{})}
	for _, q := range o.Queues {
		if err := t.Declare(ctx, q); err != nil {
			return nil, err
		}
		if !slices.Contains(c.queues, q.Name) {
			c.queues = append(c.queues, q.Name)
		}
	}
	return c, nil
}

// Receive implements transport.Consumer.
func (c *consumer) Receive(ctx context.Context, max int) ([]transport.Delivery, error) {
	for {
		c.b.mu.Lock()
		select {
		case <-c.closed:
			c.b.mu.Unlock()
			return nil, transport.ErrClosed
		default:
		}
		if ctx.Err() != nil {
			c.b.mu.Unlock()
			return nil, context.Cause(ctx)
		}
		next := c.moveDue()
		batch := c.take(max)
		changed := c.b.changed
		c.b.mu.Unlock()
		if len(batch) > 0 {
			return batch, nil
		}
		timer := time.NewTimer(next)
		select {
		case <-changed:
		case <-timer.C:
		case <-c.closed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// moveDue moves what is due in the consumer's queues, and tells how long the next one has. The caller holds mu.
func (c *consumer) moveDue() (next time.Duration) {
	next, now := time.Hour, time.Now()
	for _, q := range c.queues {
		next = min(next, c.b.moveDue(q, now))
	}
	return next
}

// take pops by priority over all queues, one queue after the other within a priority. The caller holds mu.
func (c *consumer) take(max int) []transport.Delivery {
	var batch []transport.Delivery
	c.rotate++
	for len(batch) < max {
		best := ""
		for i := range c.queues {
			name := c.queues[(i+c.rotate)%len(c.queues)]
			if w := c.b.queue(name).waiting; len(w) > 0 && (best == "" || w[0].priority < c.b.queue(best).waiting[0].priority) {
				best = name
			}
		}
		if best == "" {
			return batch
		}
		c.rotate++
		q := c.b.queue(best)
		it := q.waiting[0]
		q.waiting = q.waiting[1:]
		q.unacked++
		c.tags++
		d := transport.Delivery{Tag: strconv.Itoa(c.tags), Queue: best, Raw: it.raw}
		d.Message, d.Err = protocol.DecodeEnvelope(d.Raw)
		if d.Message != nil {
			d.Redelivered = d.Message.Headers.Redelivered
		}
		c.held[d.Tag] = held{it, best, c.tags, 0}
		batch = append(batch, d)
	}
	return batch
}

// Settle implements transport.Consumer.
func (c *consumer) Settle(_ context.Context, batch []transport.Settlement) (lost int, err error) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	// Put to the front one after the other, the oldest must come last.
	batch = slices.Clone(batch)
	slices.SortStableFunc(batch, func(a, b transport.Settlement) int {
		if a.Verdict != b.Verdict {
			return int(a.Verdict - b.Verdict)
		}
		if a.Verdict == transport.Return {
			a, b = b, a
		}
		return c.held[a.Delivery.Tag].seq - c.held[b.Delivery.Tag].seq
	})
	for _, s := range batch {
		h, ok := c.held[s.Delivery.Tag]
		if !ok {
			lost++
			continue
		}
		delete(c.held, s.Delivery.Tag)
		c.b.queue(h.queue).unacked--
		switch s.Verdict {
		case transport.Requeue, transport.Return:
			raw := h.it.raw
			if h.begun > 0 && s.Verdict == transport.Return {
				if uncounted, err := protocol.MarkAttempts(raw, h.begun-1); err == nil {
					raw = uncounted
				}
			}
			marked, err := protocol.MarkRedelivered(raw)
			if err != nil {
				c.b.setAside(h.queue, "cannot be given back: "+err.Error(), h.it.raw)
				continue
			}
			c.b.put(h.queue, item{marked, h.it.priority}, s.Verdict == transport.Return)
		case transport.Quarantine:
			c.b.setAside(h.queue, s.Reason, h.it.raw)
		}
	}
	return lost, nil
}

// Quarantine implements transport.Quarantiner.
func (c *consumer) Quarantine(_ context.Context, d *transport.Delivery, reason string) error {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.b.setAside(d.Queue, reason, d.Raw)
	return nil
}

// Close implements transport.Consumer.
func (c *consumer) Close(ctx context.Context) error {
	c.b.mu.Lock()
	select {
	case <-c.closed:
		c.b.mu.Unlock()
		return nil
	default:
	}
	close(c.closed)
	var batch []transport.Settlement
	for tag := range c.held {
		batch = append(batch, transport.Settlement{Delivery: &transport.Delivery{Tag: tag}, Verdict: transport.Return})
	}
	c.b.mu.Unlock()
	_, err := c.Settle(ctx, batch)
	return err
}
