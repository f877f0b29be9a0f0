package rabbitmq

import (
	"context"
	"errors"

	"github.com/gelery/gelery/transport"
)

// Add implements transport.Consumer.
func (c *consumer) Add(context.Context, transport.Queue) error { return errors.ErrUnsupported }

// Cancel implements transport.Consumer.
func (c *consumer) Cancel(context.Context, string) error { return errors.ErrUnsupported }

// Begin implements transport.Consumer.
func (c *consumer) Begin(context.Context, *transport.Delivery) (again bool, err error) {
	return false, errors.ErrUnsupported
}
