package memory

import (
	"context"
	"fmt"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// Begin implements transport.Consumer.
func (c *consumer) Begin(_ context.Context, d *transport.Delivery) error {
	if d.Message == nil {
		return fmt.Errorf("begin: the message could not be decoded: %w", d.Err)
	}
	attempts := d.Message.Headers.Attempts() + 1
	raw, err := protocol.MarkAttempts(d.Raw, attempts)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	h, ok := c.held[d.Tag]
	if !ok {
		return transport.ErrTakenBack
	}
	h.it.raw, h.begun = raw, attempts
	c.held[d.Tag] = h
	m := *d.Message
	m.Headers.SetAttempts(attempts)
	d.Raw, d.Message = raw, &m
	return nil
}
