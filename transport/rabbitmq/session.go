package rabbitmq

import (
	"context"

	amqp "github.com/rabbitmq/amqp091-go"
)

// session is one connection of a link, from its handshake to its loss.
type session struct {
	*amqp.Connection
	socket   *socket
	endpoint endpoint
	gone     chan struct{} // closed when it is lost
	calls    chan struct{} // as many tokens as calls may be waiting for the broker at once
}

// maxCalls bounds the calls that wait for a broker which does not answer. amqp091-go knows no deadline, so that each
// holds a goroutine until the answer or the end of the connection.
const maxCalls = 16

// call runs a call that waits for the broker, until ctx is done: amqp091-go's own know no deadline. One that is left
// behind ends with its answer or with the session.
func (s *session) call(ctx context.Context, f func() error) error {
	select {
	case s.calls <- struct{}{}:
	case <-s.gone:
		return amqp.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-s.calls }()
		done <- f()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// channel opens a channel.
func (s *session) channel(ctx context.Context) (*amqp.Channel, error) {
	var ch *amqp.Channel
	err := s.call(ctx, func() (err error) {
		ch, err = s.Channel()
		if err == nil && ctx.Err() != nil {
			_ = ch.Close() // nobody waits for it any more
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return ch, nil
}
