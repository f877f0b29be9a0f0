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

// ask asks the broker for something about a channel. A broker that does not answer reads nothing from this connection any
// more, or the channel's process hangs; the connection is given up then.
func (p *publisher) ask(ctx context.Context, s *session, question func(ctx context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, openPause)
	defer cancel()
	err := question(within)
	if blocked, _ := p.link.flow(); errors.Is(err, context.DeadlineExceeded) && !blocked {
		p.link.log.Warn("RabbitMQ does not answer, connecting anew", "connection", p.link.name, "after", openPause)
		_ = s.socket.Close()
	}
	return err
}

// open opens a channel.
func (p *publisher) open(ctx context.Context, s *session) (ch *amqp.Channel, err error) {
	err = p.ask(ctx, s, func(ctx context.Context) error {
		ch, err = s.channel(ctx)
		return err
	})
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
			// Confirmations that have come before this answer are read first.
			p.alive = p.ask(ctx, s, func(ctx context.Context) error { return s.call(ctx, ch.Close) }) == nil
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
