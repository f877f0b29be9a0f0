package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/transport"
)

const (
	// publishWindow is how many messages may be unconfirmed at once.
	publishWindow = 1024
	// nackPause is the wait before a message that the broker did not take is sent again.
	nackPause = 100 * time.Millisecond
	// staleNacks is how often a message is refused before the channel is suspected, and stalePause the time between two
	// such suspicions. A channel that has published to a quorum queue while it had no leader refuses on for ever.
	staleNacks = 2
	stalePause = 500 * time.Millisecond
)

// publisher is the actor that publishes on one connection. What callers hand over while it is busy leaves in one write,
// and each of them waits for the confirmations of its own messages. What was not confirmed when the connection broke is
// sent again on the next one, for as long as its caller waits.
type publisher struct {
	link   *link
	calls  chan *submission
	cancel context.CancelFunc
	ended  chan struct{}

	waiting []*outbound // to be written, in order
	refused []*outbound // written and refused; to be written again a little later
	pending []*outbound // written and unconfirmed, in the order of their tags
	careful bool        // one at a time, to find out for which message the broker closes the channel
	stale   bool        // nothing more is written on this channel; it is replaced when nothing is pending
	doubted time.Time   // when stale was last set
}

// submission is one call of publish: its messages, and how many of them the broker has still to answer.
type submission struct {
	ctx   context.Context
	batch []*outbound
	done  chan struct{} // closed when all are answered
	left  int           // the actor's
	err   error         // of the first message that failed; to be read when done is closed
	// What the caller looks at when it does not wait any longer.
	taken  atomic.Int32 // confirmed
	doubt  atomic.Int32 // written, and neither confirmed nor refused
	nacked atomic.Bool  // something was refused
}

// outbound is one message on its way.
type outbound struct {
	of            *submission
	exchange, key string
	optional      bool
	message       amqp.Publishing
	written       bool
	nacks         int
	returned      string // why the broker gave it back; "": it did not
}

func newPublisher(l *link) *publisher {
	ctx, cancel := context.WithCancel(context.Background())
	p := &publisher{link: l, calls: make(chan *submission, 64), cancel: cancel, ended: make(chan struct{})}
	go p.run(ctx)
	return p
}

// close ends the actor. Calls that still wait end with ErrClosed.
func (p *publisher) close() {
	p.cancel()
	<-p.ended
}

// publish hands messages to the broker and waits until it has them all. doubt tells that some may have arrived
// although err is not nil.
func (p *publisher) publish(ctx context.Context, batch []*outbound) (doubt bool, err error) {
	s := &submission{ctx: ctx, batch: batch, done: make(chan struct{}), left: len(batch)}
	for _, o := range batch {
		o.of = s
	}
	select {
	case p.calls <- s:
	case <-p.ended:
		return false, transport.ErrClosed
	case <-ctx.Done():
		return false, p.why(ctx, s)
	}
	select {
	case <-s.done:
		return s.err != nil && s.taken.Load() > 0, s.err
	case <-p.ended:
		return s.taken.Load()+s.doubt.Load() > 0, transport.ErrClosed
	case <-ctx.Done():
		return s.taken.Load()+s.doubt.Load() > 0, p.why(ctx, s)
	}
}

// why is the error of a call whose context ended: what kept the broker from answering, and the context's own.
func (p *publisher) why(ctx context.Context, s *submission) error {
	state := p.link.state()
	if state == nil && s.nacked.Load() {
		state = transport.ErrRefused
	}
	if state == nil {
		return fmt.Errorf("the broker did not answer in time: %w", context.Cause(ctx))
	}
	return fmt.Errorf("%w: %w", state, context.Cause(ctx))
}

// run publishes until it is closed, on one channel after the other.
func (p *publisher) run(ctx context.Context) {
	defer close(p.ended)
	for ctx.Err() == nil {
		s, err := p.link.await(ctx)
		if err != nil {
			return // closed
		}
		if err := p.serve(ctx, s); err != nil && ctx.Err() == nil {
			p.link.log.Debug("publishing channel lost", "error", err)
		}
		p.again()
	}
}

// serve publishes on a channel of its own until it is lost, and says why it was.
func (p *publisher) serve(ctx context.Context, s *session) error {
	ch, err := s.channel(ctx)
	if err == nil {
		err = s.call(ctx, func() error { return ch.Confirm(false) })
	}
	if err != nil {
		select {
		case <-s.gone:
		case <-time.After(nackPause): // the broker has no channel for us now
		case <-ctx.Done():
		}
		return err
	}
	// With room for all that can come, amqp091-go's reader never waits for us while we wait for it.
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, publishWindow))
	returns := ch.NotifyReturn(make(chan amqp.Return, publishWindow))
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	var pause <-chan time.Time
	for {
		if p.stale && (len(p.pending) == 0 || time.Since(p.doubted) > stalePause) {
			p.stale = false
			if len(p.pending) == 0 {
				_ = s.call(ctx, ch.Close) // replaced in any case
				return errStale
			}
		}
		blocked, flow := p.link.flow()
		if !blocked && !p.stale {
			if err := p.write(s, ch); err != nil {
				_ = s.socket.Close() // half a frame may have been written
				return err
			}
		}
		if (len(p.refused) > 0 || p.stale) && pause == nil {
			pause = time.After(nackPause)
		}
		calls := p.calls
		if len(p.waiting) > publishWindow {
			calls = nil // what waits is in the callers' hands
		}
		select {
		case call := <-calls:
			p.take(call)
		case c, ok := <-confirms:
			if !ok {
				return p.blame(<-closed)
			}
			if err := p.confirmed(c, confirms, returns); err != nil {
				_ = s.socket.Close() // it is no broker
				return err
			}
		case <-pause:
			pause = nil
			p.waiting = append(p.waiting, p.refused...)
			p.refused = nil
		case <-flow:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take accepts a call, and whatever other calls have come meanwhile.
func (p *publisher) take(call *submission) {
	for {
		p.waiting = append(p.waiting, call.batch...)
		select {
		case call = <-p.calls:
		default:
			return
		}
		if len(p.waiting) > publishWindow {
			p.waiting = append(p.waiting, call.batch...)
			return
		}
	}
}

// write writes what waits, as far as the window allows, in one go.
func (p *publisher) write(s *session, ch *amqp.Channel) error {
	window := publishWindow
	if p.careful {
		window = 1
	}
	if len(p.waiting) == 0 || len(p.pending) >= window {
		return nil
	}
	s.socket.cork()
	n := 0
	for ; n < len(p.waiting) && len(p.pending) < window; n++ {
		o := p.waiting[n]
		// The doubt comes first: whoever gives up while it is written must not read that it was not.
		if !o.written {
			o.of.doubt.Add(1)
		}
		err := o.of.ctx.Err()
		gone := err != nil // nobody waits for it
		if !gone {
			err = ch.Publish(o.exchange, o.key, !o.optional, false, o.message)
		}
		if err != nil && !o.written {
			o.of.doubt.Add(-1)
		}
		if gone {
			continue
		}
		if err != nil {
			break // the channel is closed, and serve will hear why
		}
		o.written = true
		p.pending = append(p.pending, o)
	}
	clear(p.waiting[:n])
	p.waiting = p.waiting[n:]
	if len(p.waiting) == 0 {
		p.waiting = nil
	}
	return s.socket.uncork()
}

// confirmed settles the message that a confirmation is for, and all others that have come with it. A message that is
// given back as unroutable was given back before it was confirmed.
func (p *publisher) confirmed(c amqp.Confirmation, confirms <-chan amqp.Confirmation, returns <-chan amqp.Return) error {
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
		case !c.Ack:
			o.of.nacked.Store(true)
			o.of.doubt.Add(-1)
			o.written, o.returned = false, ""
			if o.nacks++; o.nacks >= staleNacks && time.Since(p.doubted) > stalePause {
				p.stale, p.doubted = true, time.Now()
			}
			p.refused = append(p.refused, o)
		case o.returned != "" && !o.optional:
			p.fail(o, fmt.Errorf("exchange %q, routing key %q: %w", o.exchange, o.key, transport.ErrNoRoute))
		default:
			o.of.taken.Add(1)
			o.of.doubt.Add(-1)
			p.answered(o.of)
		}
		select {
		case next, ok := <-confirms:
			if !ok {
				return nil // serve will see it too
			}
			c = next
		default:
			p.careful = p.careful && len(p.pending)+len(p.waiting) > 0
			return nil
		}
	}
}

var errStale = errors.New("the channel refuses messages again and again, trying another one")

// errSurplus is what ends a connection whose other side is confused, or no friend.
var errSurplus = errors.New("a confirmation came for which there is no message")

// returned marks the oldest message that the broker can have meant.
func (p *publisher) returned(r amqp.Return) {
	for _, o := range p.pending {
		if o.returned == "" && o.exchange == r.Exchange && o.key == r.RoutingKey && o.message.CorrelationId == r.CorrelationId {
			o.returned = firstOf(r.ReplyText, "NO_ROUTE")
			return
		}
	}
}

// fail ends a message with an error.
func (p *publisher) fail(o *outbound, err error) {
	if o.of.err == nil {
		o.of.err = err
	}
	if o.written {
		o.of.doubt.Add(-1)
	}
	p.answered(o.of)
}

func (p *publisher) answered(s *submission) {
	if s.left--; s.left == 0 {
		close(s.done)
	}
}

// again puts what was written and not answered before what waits. It keeps its doubt.
func (p *publisher) again() {
	p.waiting = append(p.pending, p.waiting...)
	p.pending, p.stale = nil, false
	for _, o := range p.waiting {
		o.returned = ""
	}
}

// blame finds the message for which the broker closed the channel and fails it; the others are sent again. A broker
// that names the exchange means every message to it. If it does not say, messages are sent one by one until it is
// clear.
func (p *publisher) blame(e *amqp.Error) error {
	if e == nil || !e.Recover && e.Code != amqp.AccessRefused && e.Code != amqp.NotFound && e.Code != amqp.PreconditionFailed {
		return firstError(e, amqp.ErrClosed) // the connection's end, no message's fault
	}
	cause := translate(e)
	guilty := func(o *outbound) bool { return len(p.pending) == 1 }
	if name, ok := exchangeIn(e.Reason); ok {
		guilty = func(o *outbound) bool { return o.exchange == name || name == "amq.default" && o.exchange == "" }
	}
	var innocent []*outbound
	for _, o := range p.pending {
		switch {
		case !guilty(o):
			innocent = append(innocent, o)
		case errors.Is(cause, errNotFound) && o.optional:
			p.answered(o.of)
		case errors.Is(cause, errNotFound):
			p.fail(o, fmt.Errorf("exchange %q, routing key %q: %w: %s", o.exchange, o.key, transport.ErrNoRoute, e.Reason))
		default:
			p.fail(o, fmt.Errorf("exchange %q, routing key %q: %w", o.exchange, o.key, cause))
		}
	}
	p.careful = len(innocent) == len(p.pending)
	p.pending = innocent
	return e
}

// exchangeIn reads the name of an exchange from the broker's text: "no exchange 'x' in vhost", "access to exchange 'x'
// in vhost".
func exchangeIn(reason string) (string, bool) {
	_, rest, ok := strings.Cut(reason, "exchange '")
	if !ok {
		return "", false
	}
	name, _, ok := strings.Cut(rest, "' in vhost")
	return name, ok
}

func firstError(e *amqp.Error, otherwise error) error {
	if e != nil {
		return e
	}
	return otherwise
}
