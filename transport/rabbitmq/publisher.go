package rabbitmq

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/transport"
)

const (
	// publishWindow is how many messages may be unconfirmed at once, and silentWindow how many while none was confirmed for
	// freshness: RabbitMQ stops to read from a connection on which a queue owes it more than 400, and with that all lanes.
	publishWindow = 1024
	silentWindow  = 256
	freshness     = 200 * time.Millisecond
	// nackPause is the wait before a message that the broker did not take is sent again.
	nackPause = 100 * time.Millisecond
	// staleNacks is how often a message is refused before the channel is suspected, and stalePause the time between two
	// such suspicions. A channel that has published to a quorum queue while it had no leader refuses on for ever.
	staleNacks = 2
	stalePause = 500 * time.Millisecond
	// optionalNacks is how often a message that nobody need get is refused before it fails.
	optionalNacks = 10
	// abandonedPause is how long nothing was confirmed before a channel is replaced on which nobody waits for anything.
	abandonedPause = time.Second
	// silentPause is how long a queue may confirm nothing before messages for it fail that nobody need get.
	silentPause = 5 * time.Second
	// openPause is how long the broker may take to open a channel, and to answer what is asked about one.
	openPause = 10 * time.Second
)

// publisher is the actor that publishes on one connection. What callers hand over while it is busy leaves in one write,
// and each of them waits for the confirmations of its own messages. What was not confirmed when the connection broke is
// sent again on the next one, for as long as its caller waits.
type publisher struct {
	link   *link
	gone   func(exchange string) // told that an exchange is not there
	calls  chan *submission
	cancel context.CancelFunc
	ended  chan struct{}

	waiting []*outbound   // to be written, in order
	refused []*outbound   // written and refused; to be written again a little later
	pending []*outbound   // written and unconfirmed, in the order of their tags
	careful int           // how many in front of waiting go one at a time, to find out for which the broker closes the channel
	stale   bool          // nothing more is written on this channel; it is replaced when nothing is pending
	doubted time.Time     // when stale was last set
	heard   time.Time     // when this channel last confirmed something
	owed    time.Time     // since when the broker confirms nothing although something is pending
	alive   bool          // the broker has answered meanwhile
	left    chan struct{} // closed when the channel that was replaced last is; nil: there was none
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
	once          bool // it is not written again when its channel is lost and the broker may have it
	message       amqp.Publishing
	written       bool
	nacks         int
	returned      bool // the broker gave it back, as unroutable
	answered      bool // its caller knows what became of it
	place         int  // in the caller's batch
	// What the caller looks at, also when it does not wait any longer.
	confirmed atomic.Bool
	failure   atomic.Pointer[error]
}

// abandoned tells that nobody waits for the message any more.
func (o *outbound) abandoned() bool { return o.answered || o.of.ctx.Err() != nil }

// newPublisher starts the actor, which runs until cancel. Calls that still wait end with ErrClosed then.
func newPublisher(l *link, gone func(exchange string)) *publisher {
	ctx, cancel := context.WithCancel(context.Background())
	p := &publisher{link: l, gone: gone, calls: make(chan *submission, 64), cancel: cancel, ended: make(chan struct{})}
	go p.run(ctx)
	return p
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
		return s.err != nil && s.taken.Load()+s.doubt.Load() > 0, s.err
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
	ch, err := p.open(ctx, s)
	if err == nil {
		err = p.ask(ctx, s, func(ctx context.Context) error {
			return s.call(ctx, func() error { return ch.Confirm(false) })
		})
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
	p.heard, p.alive = time.Time{}, false
	var pause <-chan time.Time
	for {
		if p.stale && (len(p.pending) == 0 || time.Since(p.doubted) > stalePause) {
			p.stale = false
			if len(p.pending) == 0 && !p.leaving() {
				p.leave(ch)
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
		if (len(p.refused)+len(p.pending) > 0 || p.stale) && pause == nil {
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
			switch {
			case blocked:
				p.owed = time.Now() // it is no queue's silence
			case p.forsaken():
				p.leave(ch)
				return errForsaken
			default:
				p.giveUp(ctx, s)
			}
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

// window is how many messages may be pending now.
func (p *publisher) window() int {
	switch {
	case p.careful > 0:
		return 1
	case time.Since(p.heard) > freshness:
		return silentWindow
	}
	return publishWindow
}

// write writes what waits, as far as the window allows, in one go.
func (p *publisher) write(s *session, ch *amqp.Channel) error {
	window := p.window()
	if len(p.waiting) == 0 || len(p.pending) >= window {
		return nil
	}
	if len(p.pending) == 0 {
		p.owed, p.alive = time.Now(), false
	}
	s.socket.cork()
	n := 0
	for ; n < len(p.waiting) && len(p.pending) < window; n++ {
		o := p.waiting[n]
		p.careful = max(0, p.careful-1)
		// The doubt comes first: whoever gives up while it is written must not read that it was not.
		if !o.written {
			o.of.doubt.Add(1)
		}
		gone := o.abandoned()
		var err error
		if !gone {
			err = ch.Publish(o.exchange, o.key, !o.optional, false, o.message)
		}
		if (gone || err != nil) && !o.written {
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
