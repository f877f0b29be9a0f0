package memory

import (
	"context"
	"slices"

	"github.com/gelery/gelery/transport"
)

// Add implements transport.Consumer.
func (c *consumer) Add(ctx context.Context, q transport.Queue) error {
	if err := (memoryTransport{c.b}).Declare(ctx, q); err != nil {
		return err
	}
	return c.change(func(queues []string) []string {
		if slices.Contains(queues, q.Name) {
			return queues
		}
		return append(queues, q.Name)
	})
}

// Cancel implements transport.Consumer. With the last queue cancelled, Receive waits for one to be added.
func (c *consumer) Cancel(_ context.Context, queue string) error {
	return c.change(func(queues []string) []string {
		return slices.DeleteFunc(queues, func(q string) bool { return q == queue })
	})
}

func (c *consumer) change(edit func(queues []string) []string) error {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	select {
	case <-c.closed:
		return transport.ErrClosed
	default:
	}
	c.queues = edit(c.queues)
	c.b.wake()
	return nil
}
