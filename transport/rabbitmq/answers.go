package rabbitmq

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/transport"
)

// What a publisher does with what the broker says about messages: taken, refused, given back, or the channel closed.

// confirmed settles the message that a confirmation is for, and all others that have come with it. A message that is
// given back as unroutable was given back before it was confirmed.
func (p *publisher) confirmed(c amqp.Confirmation, confirms <-chan amqp.Confirmation, returns <-chan amqp.Return) error {
	p.heard, p.alive = time.Now(), false
	p.owed = p.heard
	for {
		for more := true; more; {
			select {
			case r, ok := <-returns:
				if more = ok; ok {
					p.returned(r)
				}
			default:
				more = false
			}
		}
		if len(p.pending) == 0 {
			return errSurplus
		}
		o := p.pending[0]
		p.pending[0] = nil
		p.pending = p.pending[1:]
		switch {
		case o.answered:
		case !c.Ack:
			p.nacked(o)
		case o.returned && !o.optional:
			p.fail(o, transport.ErrNoRoute)
		default:
			o.of.taken.Add(1)
			o.of.doubt.Add(-1)
			p.answer(o, nil)
		}
		select {
		case next, ok := <-confirms:
			if !ok {
				return nil // serve will see it too
			}
			c = next
		default:
			return nil
		}
	}
}

var (
	errStale    = errors.New("the channel refuses messages again and again, trying another one")
	errForsaken = errors.New("the channel confirms nothing, and nobody waits for it any more")
)

// errSurplus is what ends a connection whose other side is confused, or no friend.
var errSurplus = errors.New("a confirmation came for which there is no message")

// nacked puts a message that the broker did not take aside, to be written again. One that nobody need get fails at last.
func (p *publisher) nacked(o *outbound) {
	o.of.nacked.Store(true)
	if o.nacks++; o.nacks >= staleNacks && time.Since(p.doubted) > stalePause {
		p.stale, p.doubted = true, time.Now()
	}
	if o.optional && o.nacks >= optionalNacks {
		p.fail(o, transport.ErrRefused)
		return
	}
	o.of.doubt.Add(-1)
	o.written, o.returned = false, false
	p.refused = append(p.refused, o)
}

// returned marks the oldest message that the broker can have meant.
func (p *publisher) returned(r amqp.Return) {
	for _, o := range p.pending {
		if !o.returned && o.exchange == r.Exchange && o.key == r.RoutingKey && o.message.CorrelationId == r.CorrelationId {
			o.returned = true
			return
		}
	}
}

// fail ends a message that the broker has not taken; err nil: it need not.
func (p *publisher) fail(o *outbound, err error) {
	if o.answered {
		return
	}
	if o.written {
		o.of.doubt.Add(-1)
	}
	if err != nil {
		err = fmt.Errorf("exchange %q, routing key %q: %w", o.exchange, o.key, err)
	}
	p.answer(o, err)
}

// answer tells a caller what became of one of its messages.
func (p *publisher) answer(o *outbound, err error) {
	o.answered = true
	if err == nil {
		o.confirmed.Store(true)
	} else {
		o.failure.Store(&err)
	}
	s := o.of
	if s.err == nil {
		s.err = err
	}
	if s.left--; s.left == 0 {
		close(s.done)
	}
}

// errUnconfirmed is what becomes of a message that is written once.
var errUnconfirmed = errors.New("its channel was lost before it was confirmed")

// again puts what was written and not answered before what waits. It keeps its doubt, and so does what is not written again:
// what goes once and may be with the broker.
func (p *publisher) again() {
	written := p.pending[:0]
	for _, o := range p.pending {
		switch {
		case !o.once || !o.written:
			written = append(written, o)
		case !o.answered:
			p.answer(o, fmt.Errorf("exchange %q, routing key %q: %w", o.exchange, o.key, errUnconfirmed))
		}
	}
	p.waiting = append(written, p.waiting...)
	p.pending, p.stale = nil, false
	for _, o := range p.waiting {
		o.returned = false
	}
}

// blame finds the message for which the broker closed the channel and fails it; the others are sent again. A broker
// that names the exchange, or the key, means every message to it. If it does not say, messages are sent one by one until
// it is clear. From a channel that it closes the broker takes nothing more, so what goes once and stands behind
// the last that it can mean is in no doubt.
func (p *publisher) blame(e *amqp.Error) error {
	if e == nil || !e.Recover && e.Code != amqp.AccessRefused && e.Code != amqp.NotFound && e.Code != amqp.PreconditionFailed {
		return firstError(e, amqp.ErrClosed) // the connection's end, no message's fault
	}
	guilty := func(o *outbound) bool { return o.namedIn(e.Reason) }
	if !slices.ContainsFunc(p.pending, guilty) {
		guilty = func(*outbound) bool { return len(p.pending) == 1 }
	}
	var innocent []*outbound
	before := 0 // how many innocent ones stand before the last that is guilty
	for _, o := range p.pending {
		if !guilty(o) {
			innocent = append(innocent, o)
			continue
		}
		before = len(innocent)
		switch e.Code {
		case amqp.NotFound:
			p.gone(o.exchange)
			if o.optional {
				p.fail(o, nil)
			} else {
				p.fail(o, fmt.Errorf("%w: %s", transport.ErrNoRoute, e.Reason))
			}
		case amqp.PreconditionFailed: // too large, or an expiration that is none
			p.fail(o, fmt.Errorf("%w: %s", transport.ErrRefused, e.Reason))
		default:
			p.fail(o, translate(e))
		}
	}
	p.careful = 0
	if len(innocent) == len(p.pending) {
		p.careful, before = len(innocent), len(innocent)
	}
	for _, o := range innocent[before:] {
		if o.once { // others may be in doubt since a channel before this one
			o.of.doubt.Add(-1)
			o.written = false
		}
	}
	p.pending = innocent
	return e
}

// namedIn tells that the broker's text means this message: "no exchange 'x' in vhost '/'", "access to exchange 'x' in
// vhost '/' refused for user 'u'", "access to topic 'key' in exchange 'x' in vhost '/' refused for user 'u'".
func (o *outbound) namedIn(reason string) bool {
	place := "exchange '" + firstOf(o.exchange, "amq.default") + "' in vhost"
	if strings.Contains(reason, "access to topic '") {
		place = "topic '" + o.key + "' in " + place
	}
	return strings.Contains(reason, place)
}
