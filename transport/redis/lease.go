package redis

import (
	"context"
	"time"

	"github.com/gelery/gelery/internal/redisconn"
)

// renewEvery is how often held claims are moved to now. It is short because a Python worker on the same database may
// have a visibility timeout of a few seconds, and cheap: one script call.
const renewEvery = 1500 * time.Millisecond

// renewLeases is the actor that keeps what this process holds alive: other Go workers wait for the lease to run out,
// Python's sweep for the visibility timeout, both counted from the score in unacked_index.
func (c *consumer) renewLeases() {
	ticker := time.NewTicker(min(renewEvery, c.t.options.lease/4, c.t.options.visibilityTimeout/4))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			c.renew()
		case <-c.ctx.Done():
			return
		}
	}
}

func (c *consumer) renew() {
	c.mu.Lock()
	tags := make([]any, 0, len(c.held))
	for tag := range c.held {
		tags = append(tags, tag)
	}
	c.mu.Unlock()
	for len(tags) > 0 {
		n := min(len(tags), settleChunk)
		var gone []any
		ctx, cancel := context.WithTimeout(c.ctx, c.t.options.lease)
		err := redisconn.Do(ctx, c.log, "renew leases", func(ctx context.Context) (err error) {
			gone, err = renewScript.Run(ctx, c.t.commands, []string{c.t.keys.unackedIndexKey()}, tags[:n]...).Slice()
			return err
		}, redisconn.RetryFull)
		cancel()
		if err != nil {
			if c.ctx.Err() == nil {
				c.log.Error("leases are not renewed: other workers will take these tasks for lost", "tasks", len(tags), "error", err)
			}
			return // the next tick tries again
		}
		for _, g := range gone {
			if i, ok := g.(int64); ok {
				c.lost(tags[i-1].(string))
			}
		}
		tags = tags[n:]
	}
}

// lost notes that someone else has been given what we hold. The task runs on and may run twice; settling it later
// finds nothing to settle.
func (c *consumer) lost(tag string) {
	c.mu.Lock()
	h := c.held[tag]
	if h == nil || h.settling { // settled since the tags were listed, or about to be
		c.mu.Unlock()
		return
	}
	delete(c.held, tag)
	c.mu.Unlock()
	id := ""
	if h.delivery.Message != nil {
		id = h.delivery.Message.Headers.ID
	}
	c.log.Warn("lease lost: the task may run twice", "queue", h.delivery.Queue, "task_id", id)
}
