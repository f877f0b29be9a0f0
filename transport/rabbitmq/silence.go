package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/transport"
)

// What a publisher does when the broker says nothing.

// open opens a channel. A broker that does not do it reads nothing from this connection any more, which is given up then.
func (p *publisher) open(ctx context.Context, s *session) (*amqp.Channel, error) {
	within, cancel := context.WithTimeout(ctx, openPause)
	defer cancel()
	ch, err := s.channel(within)
	if blocked, _ := p.link.flow(); errors.Is(err, context.DeadlineExceeded) && !blocked {
		p.link.log.Warn("RabbitMQ does not open a channel, connecting anew", "after", openPause)
		_ = s.socket.Close()
	}
	return ch, err
}

// leave closes a channel in whose place another comes. It does not wait for it, because RabbitMQ asks the queues first.
func (p *publisher) leave(ch *amqp.Channel) {
	left := make(chan struct{})
	p.left = left
	go func() {
		defer close(left)
		_ = ch.Close() // ends with the session if not before
	}()
}

// leaving tells that a channel is still being closed. There is never more than one of a lane.
func (p *publisher) leaving() bool {
	if p.left == nil {
		return false
	}
	select {
	case <-p.left:
		return false
	default:
		return true
	}
}

// forsaken tells that nothing is confirmed, and that nobody waits for it any more.
func (p *publisher) forsaken() bool {
	return len(p.pending) > 0 && time.Since(p.owed) > abandonedPause && !p.leaving() &&
		!slices.ContainsFunc(p.pending, func(o *outbound) bool { return !o.abandoned() })
}

// giveUp fails the optional messages when nothing is confirmed for too long: whoever names a queue that confirms nothing
// must not hold up others for ever. They keep their doubt. It asks first whether the broker answers on this connection,
// because what is lost with a connection is to be sent again.
func (p *publisher) giveUp(ctx context.Context, s *session) {
	overdue := func(o *outbound) bool { return o.optional && !o.abandoned() }
	if len(p.pending) == 0 || time.Since(p.owed) < silentPause || !slices.ContainsFunc(p.pending, overdue) {
		return
	}
	if !p.alive {
		if ch, err := p.open(ctx, s); err == nil {
			p.alive = s.call(ctx, ch.Close) == nil // confirmations that have come before this answer are read first
		}
		return
	}
	for _, o := range p.pending {
		if overdue(o) {
			p.answer(o, fmt.Errorf("exchange %q, routing key %q: %w: it was not confirmed within %v",
				o.exchange, o.key, transport.ErrRefused, silentPause))
		}
	}
	p.alive, p.owed = false, time.Now()
}
