package memory

import (
	"context"
	"fmt"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// Begin implements transport.Consumer. again is never true.
func (c *consumer) Begin(_ context.Context, d *transport.Delivery) (again bool, err error) {
	if d.Message == nil {
		return false, fmt.Errorf("begin: the message could not be decoded: %w", d.Err)
	}
	attempts := d.Message.Headers.Attempts() + 1
	raw, err := protocol.MarkAttempts(d.Raw, attempts)
	if err != nil {
		return false, fmt.Errorf("begin: %w", err)
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	h, ok := c.held[d.Tag]
	if !ok {
		return false, transport.ErrTakenBack
	}
	h.it.raw, h.begun = raw, attempts
	c.held[d.Tag] = h
	m := *d.Message
	m.Headers.SetAttempts(attempts)
	d.Raw, d.Message = raw, &m
	return false, nil
}
