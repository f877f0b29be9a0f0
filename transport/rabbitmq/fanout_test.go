package rabbitmq

import (
	"context"
	"testing"

	"github.com/gelery/gelery/transport"
)

// lostConsumer has one delivery, and is closed before that can be acknowledged.
type lostConsumer struct {
	transport.Consumer // nil: a method not written here panics
	given              bool
}

func (c *lostConsumer) Receive(context.Context, int) ([]transport.Delivery, error) {
	if c.given {
		return nil, transport.ErrClosed
	}
	c.given = true
	return []transport.Delivery{{Tag: "one"}}, nil
}

func (c *lostConsumer) Settle(context.Context, []transport.Settlement) (int, error) {
	return 1, transport.ErrClosed
}

// TestSubscriptionLost: a command that has come is heard, also if the link is lost before it is acknowledged.
func TestSubscriptionLost(t *testing.T) {
	t.Parallel()
	s := &subscription{consumer: &lostConsumer{}}
	if d, err := s.Receive(t.Context()); err != nil || d.Tag != "one" {
		t.Errorf("received %q, %v; expected the delivery", d.Tag, err)
	}
	if _, err := s.Receive(t.Context()); err == nil {
		t.Error("the next call tells no error")
	}
}
