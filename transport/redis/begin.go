package redis

import (
	"context"
	"fmt"
	"time"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// beginPatience is how long Redis may be away before Begin fails.
const beginPatience = 10 * time.Second

// Begin implements transport.Consumer: it changes the envelope in unacked, from where it goes back if the worker dies.
func (c *consumer) Begin(ctx context.Context, d *transport.Delivery) error {
	if d.Message == nil {
		return fmt.Errorf("begin: the message could not be decoded: %w", d.Err)
	}
	attempts := d.Message.Headers.Attempts() + 1
	raw, err := protocol.MarkAttempts(d.Raw, attempts)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, beginPatience)
	defer cancel()
	var held int
	err = redisconn.Do(ctx, c.log, "begin", func(ctx context.Context) (err error) {
		held, err = beginScript.Run(ctx, c.t.commands, []string{c.t.keys.unackedKey()},
			d.Tag, record(d.Raw, d.Queue), record(raw, d.Queue)).Int()
		return err
	})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if held == 0 {
		delete(c.held, d.Tag)
		return transport.ErrTakenBack
	}
	m := *d.Message
	m.Headers.SetAttempts(attempts)
	d.Raw, d.Message = raw, &m
	if h := c.held[d.Tag]; h != nil {
		h.delivery.Raw, h.delivery.Message, h.begun = d.Raw, d.Message, attempts
	}
	return nil
}
