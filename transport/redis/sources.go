package redis

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"

	"github.com/gelery/gelery/transport"
)

// strategies are kombu's: in which order the queues of a priority step are served.
const (
	roundRobin = "round_robin" // one after the other; who has been served goes to the end
	inOrder    = "priority"    // in the order in which they were named
	byName     = "sorted"
)

// sources are the queues a consumer receives from. They are replaced as a whole, never changed.
type sources struct {
	queues []string // as they were named
	served []string // the same in the order in which they are served
	names  []any    // of served, as JSON literals, as they stand in unacked
	waker  *waker
}

func (c *consumer) newSources(queues []string) *sources {
	s := &sources{queues: queues, served: slices.Clone(queues)}
	if c.t.options.strategy == byName {
		slices.Sort(s.served)
	}
	for _, q := range s.served {
		s.names = append(s.names, literal(q))
	}
	s.waker = newWaker(c.t, s.served)
	return s
}

// literal is a queue's name as JSON text.
func literal(queue string) string {
	text, _ := json.Marshal(queue) // a string always can be
	return string(text)
}

// record is the unacked value of a message taken from a queue.
func record(envelope []byte, queue string) []byte {
	value := make([]byte, 0, len(envelope)+len(queue)+16)
	value = append(append(append(value, '['), envelope...), `,"",`...)
	return append(append(value, literal(queue)...), ']')
}

// splitRecord is the way back, also where the envelope is no JSON.
func splitRecord(value []byte) (envelope []byte, queue string, ok bool) {
	i := bytes.LastIndex(value, []byte(`,"",`))
	if i < 1 || value[0] != '[' || value[len(value)-1] != ']' {
		return nil, "", false
	}
	if json.Unmarshal(value[i+len(`,"",`):len(value)-1], &queue) != nil || queue == "" {
		return nil, "", false
	}
	return value[1:i], queue, true
}

// source is what the consumer receives from now.
func (c *consumer) source() *sources {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sources
}

// Add implements transport.Consumer. The queue is the last one in the order "priority".
func (c *consumer) Add(ctx context.Context, q transport.Queue) error {
	if err := c.t.Declare(ctx, q); err != nil {
		return err
	}
	return c.change(ctx, func(queues []string) []string {
		if slices.Contains(queues, q.Name) {
			return queues
		}
		return append(slices.Clone(queues), q.Name)
	})
}

// Cancel implements transport.Consumer. With the last queue cancelled, Receive waits for one to be added.
func (c *consumer) Cancel(ctx context.Context, queue string) error {
	return c.change(ctx, func(queues []string) []string {
		return slices.DeleteFunc(slices.Clone(queues), func(q string) bool { return q == queue })
	})
}

// change replaces the sources between two claims, so that what is cancelled is not claimed any more when it returns. A
// Receive that waits on the old ones is woken.
func (c *consumer) change(ctx context.Context, edit func(queues []string) []string) error {
	select {
	case c.claiming <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-c.claiming }()
	if c.ctx.Err() != nil {
		return transport.ErrClosed
	}
	old := c.source()
	queues := edit(old.queues)
	if len(queues) == len(old.queues) {
		return nil
	}
	next := c.newSources(queues)
	c.mu.Lock()
	c.sources = next
	c.mu.Unlock()
	old.waker.close()
	return nil
}
