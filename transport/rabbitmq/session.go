package rabbitmq

import (
	"cmp"
	"context"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// session is one connection of a link, from its handshake to its loss.
type session struct {
	*amqp.Connection
	socket   *socket
	endpoint endpoint
	gone     chan struct{} // closed when it is lost
	calls    chan struct{} // as many tokens as calls may be waiting for the broker at once

	mu    sync.Mutex
	taken int         // of the tokens
	stuck *time.Timer // ends a session on which no further call can be made; nil: there are tokens left
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
	s.count(1)
	done := make(chan error, 1)
	go func() {
		defer func() {
			s.count(-1)
			<-s.calls
		}()
		done <- f()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// count keeps account of the tokens. When all have been taken, and none came back, for as long as a silent connection
// would be borne, the session is ended: some queues or channels do not answer, and nobody else can ask anything.
func (s *session) count(by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken += by; s.stuck != nil {
		s.stuck.Stop()
		s.stuck = nil
	}
	if s.taken == maxCalls {
		s.stuck = time.AfterFunc(cmp.Or(2*s.Config.Heartbeat, time.Minute), func() { _ = s.socket.Close() })
	}
}

// shut closes a channel. A broker that does not answer, as a channel's process may hang, loses the whole connection:
// it must not go on believing that we hold anything.
func (s *session) shut(ch *amqp.Channel) {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	if err := s.call(ctx, ch.Close); err != nil && !lost(err) {
		_ = s.socket.Close()
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
