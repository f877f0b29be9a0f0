package memory

import (
	"context"
	"slices"
	"time"

	"github.com/gelery/gelery/transport"
)

var _ transport.Delayer = (*consumer)(nil)

// delayed is a message that comes back to its queue at a time.
type delayed struct {
	item item
	eta  time.Time
}

// Worth implements transport.Delayer.
func (c *consumer) Worth(*transport.Delivery) time.Duration { return time.Second }

// Delay implements transport.Delayer. A Receive that waits gives back what has come due, and so does whoever looks at the
// queue.
func (c *consumer) Delay(_ context.Context, batch []transport.Delayed) (kept []transport.Delayed, err error) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	now := time.Now()
	for _, d := range batch {
		h, ok := c.held[d.Delivery.Tag]
		if !ok {
			continue
		}
		delete(c.held, d.Delivery.Tag)
		q := c.b.queue(h.queue)
		q.unacked--
		eta := now.Add(d.After)
		at, _ := slices.BinarySearchFunc(q.delayed, eta, func(x delayed, eta time.Time) int {
			if x.eta.After(eta) {
				return 1
			}
			return -1 // behind those of the same time
		})
		q.delayed = slices.Insert(q.delayed, at, delayed{h.it, eta})
	}
	c.b.wake()
	return nil, nil
}

// moveDue puts what is due to the front of its queue, the oldest first in line. It tells how long the next one has: an
// hour if there is none. The caller holds mu.
func (b *broker) moveDue(name string, now time.Time) (next time.Duration) {
	q := b.queue(name)
	n := 0
	for n < len(q.delayed) && !q.delayed[n].eta.After(now) {
		n++
	}
	for _, x := range slices.Backward(q.delayed[:n]) {
		b.put(name, x.item, true)
	}
	q.delayed = slices.Delete(q.delayed, 0, n)
	if len(q.delayed) == 0 {
		return time.Hour
	}
	return q.delayed[0].eta.Sub(now)
}
