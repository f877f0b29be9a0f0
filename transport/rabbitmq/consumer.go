package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// defaultPrefetch bounds what a consumer holds whose caller names no bound.
const defaultPrefetch = 1000

// maxPrefetch is the largest number basic.qos has room for.
const maxPrefetch = 65535

// consumer receives from queues, each on a channel of its own, so that what befalls one does not concern the others. A
// channel is replaced whenever it is lost: by a broken connection, by the broker's consumer_timeout, by a right that was
// withdrawn. Deliveries belong to the channel they came on (their epoch) and can be settled on no other; those that were
// held when it was lost come again to somebody, and if that is us they are recognized (adoption.go).
type consumer struct {
	t    *rabbitTransport
	link *link
	log  *slog.Logger

	running  context.Context // done when the consumer is closed; of all that belongs to it
	stop     context.CancelFunc
	ended    chan struct{} // closed when runs is over
	wake     chan struct{} // capacity 1: something came, or the consumer was closed
	changing chan struct{} // capacity 1: held while a queue is added or cancelled

	runs sync.WaitGroup // run and take, of each queue, insist, tidy, and Add
	kept chan struct{}  // capacity 1: there is something in bad

	mu       sync.Mutex
	closed   bool
	prefetch int       // of each queue
	intakes  []*intake // that Receive serves
	rotate   int       // the one to look at first
	held     map[string]*held
	lastTag  uint64
	orphans  orphans
	bad      map[*held]transport.Settlement // could not be put in quarantine, see quarantine.go

	uncountable chan struct{} // capacity 1: there is something in uncounted
	uncounted   []begun       // under mu; see begin.go
}

var (
	_ transport.Attached   = (*consumer)(nil)
	_ transport.Delayer    = (*consumer)(nil)
	_ transport.Parker     = (*consumer)(nil)
	_ transport.Prefetcher = (*consumer)(nil)
)

// epoch is one channel, from its opening to its loss. There is one consumer on it at a time.
type epoch struct {
	channel   *amqp.Channel
	session   *session
	cancelled chan string                 // the broker has cancelled the consumer
	narrow    chan struct{}               // capacity 1: there may be reason to grow, see prefetch.go
	drained   chan struct{}               // capacity 1: all deliveries of a consumer that has ended were taken
	next      chan (<-chan amqp.Delivery) // deliveries of the next consumer; closed when the epoch is over
	telling   sync.Mutex                  // held while verdicts are decided on and written
	meant     int                         // the prefetch of the consumer's time, of which its own may be a part; of run alone

	// Guarded by the consumer's mu.
	dead     bool
	round    uint64 // of the consumer; its tag
	prefetch int    // of the consumer
	ceased   bool   // nothing comes any more, see intake.go
}

// firstRound is the first consumer of a channel.
const firstRound = 0

func roundTag(round uint64) string { return strconv.FormatUint(round, 10) }

// held is a delivery that came and is not settled.
type held struct {
	amqp.Delivery
	delivery transport.Delivery
	epoch    *epoch // nil: its channel is lost, the broker gives it to somebody again
	intake   *intake
	// Under the consumer's mu. What is leaving is its settler's alone.
	leaving bool // it is being settled
	settled bool // it is being told to the broker
	parked  bool // it does not count against the prefetch
	begun   begun
}

// Consume implements transport.Transport. A queue that exists with other properties is an error here; after a
// reconnect, when it worked before, it is consumed from as it is, and the log says so.
func (t *rabbitTransport) Consume(ctx context.Context, o transport.ConsumeOptions) (transport.Consumer, error) {
	if len(o.Queues) == 0 {
		return nil, errors.New("no queue to consume from")
	}
	var queues []*declaration
	for _, q := range o.Queues {
		if slices.ContainsFunc(queues, func(d *declaration) bool { return d.alias == q.Name }) {
			continue
		}
		d, err := resolve(q)
		if err != nil {
			return nil, err
		}
		queues = append(queues, d)
	}
	prefetch := min(o.Prefetch, maxPrefetch)
	if prefetch <= 0 {
		prefetch = defaultPrefetch
	}
	c, err := t.consume(ctx, queues, prefetch)
	if err != nil {
		return nil, err // not c, which would be a consumer that is nil
	}
	return c, nil
}

// consume begins to receive from queues.
func (t *rabbitTransport) consume(ctx context.Context, queues []*declaration, prefetch int) (*consumer, error) {
	l, err := t.consuming()
	if err != nil {
		return nil, err
	}
	c := &consumer{t: t, link: l, log: t.log, prefetch: prefetch, ended: make(chan struct{}), wake: make(chan struct{}, 1),
		changing: make(chan struct{}, 1), kept: make(chan struct{}, 1), uncountable: make(chan struct{}, 1),
		held: map[string]*held{}, bad: map[*held]transport.Settlement{}}
	c.running, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	var intakes []*intake
	var opened []*epoch
	for _, d := range queues {
		in := &intake{declaration: d}
		e, err := c.begin(ctx, in)
		if err != nil {
			c.stop()
			for _, e := range opened {
				c.release(e)
			}
			c.runs.Wait()
			return nil, err
		}
		intakes, opened = append(intakes, in), append(opened, e)
	}
	for i, in := range intakes {
		c.serve(in, opened[i])
	}
	c.runs.Go(func() { c.insist(c.running) })
	c.runs.Go(func() { c.tidy(c.running) })
	go func() {
		c.runs.Wait()
		close(c.ended)
	}()
	return c, nil
}

// beginTries is how often something that must be there is looked for: it may have been removed after it was declared.
const beginTries = 5

// begin opens the first channel of a queue. A connection that is lost meanwhile is waited for.
func (c *consumer) begin(ctx context.Context, in *intake) (*epoch, error) {
	var last error
	for missed, pause := 0, firstPause; ; pause = min(2*pause, lastPause) {
		e, err := c.open(ctx, in, false)
		if err == nil {
			return e, nil
		}
		if errors.Is(err, errNotFound) {
			missed++
		}
		switch {
		case ctx.Err() != nil && last != nil:
			return nil, fmt.Errorf("%w; before: %w", err, last)
		case ctx.Err() != nil, missed == beginTries, !lost(err) && !errors.Is(err, errNotFound):
			return nil, err
		}
		last = err
		c.log.Warn("cannot consume, trying again", "queue", in.alias, "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// open declares a queue and begins to consume on a new channel. Again tells that it has worked before.
func (c *consumer) open(ctx context.Context, in *intake, again bool) (*epoch, error) {
	d := in.declaration
	if d.fresh {
		d.queue = d.alias + "." + protocol.NewID()
	}
	if err := c.declare(ctx, d, again); err != nil {
		return nil, err
	}
	s, err := c.link.wait(ctx, !again)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c.t.options.url, translate(err))
	}
	ch, err := s.channel(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	prefetch := c.prefetch
	c.mu.Unlock()
	e := &epoch{channel: ch, session: s, cancelled: ch.NotifyCancel(make(chan string, 4)), narrow: make(chan struct{}, 1), drained: make(chan struct{}, 1),
		next: make(chan (<-chan amqp.Delivery), 1), round: firstRound, prefetch: prefetch, meant: prefetch}
	deliveries, err := c.consume(ctx, e, d, firstRound, prefetch)
	if err != nil {
		go func() { _ = ch.Close() }() // ends with its answer or with the session
		return nil, fmt.Errorf("consume from queue %q: %w", d.alias, translate(err))
	}
	c.runs.Go(func() { c.take(in, e, deliveries) })
	return e, nil
}

// declare makes a queue exist. One that has worked is not given up because somebody has made it anew in another way.
func (c *consumer) declare(ctx context.Context, d *declaration, again bool) error {
	err := c.t.declare(ctx, c.link, d)
	c.t.delays.forget(d.queue) // it may be another one of that name, without the binding for what is delayed
	if again && (errors.Is(err, transport.ErrMismatch) || errors.Is(err, transport.ErrDenied)) {
		c.log.Error("queue cannot be declared any more, consuming from it as it is", "queue", d.alias, "error", err)
		return nil
	}
	return err
}

// consume starts the delivery of a queue.
func (c *consumer) consume(ctx context.Context, e *epoch, d *declaration, round uint64, prefetch int) (<-chan amqp.Delivery, error) {
	var deliveries <-chan amqp.Delivery
	err := e.session.call(ctx, func() (err error) {
		// For each consumer, not for all of the channel: quorum queues know no other way.
		if err = e.channel.Qos(prefetch, 0, false); err == nil {
			deliveries, err = e.channel.Consume(d.queue, roundTag(round), false, d.source.Exclusive, false, false, nil)
		}
		return err
	})
	return deliveries, err
}

// take puts what is delivered where Receive finds it, in the order of the channel's tags: the deliveries of a consumer
// come after all of the one before it.
func (c *consumer) take(in *intake, e *epoch, deliveries <-chan amqp.Delivery) {
	for ; deliveries != nil; deliveries = <-e.next {
		for m := range deliveries {
			h := &held{Delivery: m, epoch: e, intake: in}
			h.delivery = delivery(&h.Delivery, in.alias)
			c.offer(h)
		}
		e.drained <- struct{}{}
	}
}

// offer keeps a delivery for Receive, unless it is one we know.
func (c *consumer) offer(h *held) {
	c.mu.Lock()
	if h.epoch.dead {
		c.mu.Unlock()
		return // the broker has it back
	}
	h.intake.received++
	if h.Redelivered && !c.orphans.empty() {
		if s, ok := c.adopt(h); ok {
			c.mu.Unlock()
			if s != nil {
				_, _ = c.Settle(c.running, []transport.Settlement{*s}) // if it is lost again, that is remembered again
			}
			return
		}
	}
	c.lastTag++
	h.delivery.Tag = strconv.FormatUint(c.lastTag, 10)
	h.intake.waiting = append(h.intake.waiting, h)
	c.mu.Unlock()
	c.signal()
}

func (c *consumer) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Receive implements transport.Consumer. Queues are served in turn.
func (c *consumer) Receive(ctx context.Context, max int) ([]transport.Delivery, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			c.signal() // for whoever asks after us
			return nil, transport.ErrClosed
		}
		batch := c.next(max)
		c.mu.Unlock()
		if len(batch) > 0 {
			return batch, nil
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
		}
	}
}

// next hands out at most max of what waits. The caller holds mu.
func (c *consumer) next(max int) []transport.Delivery {
	var batch []transport.Delivery
	for idle := 0; idle < len(c.intakes) && len(batch) < max; {
		in := c.intakes[c.rotate%len(c.intakes)]
		c.rotate++
		if len(in.waiting) == 0 {
			idle++
			continue
		}
		idle = 0
		h := in.waiting[0]
		in.waiting[0] = nil
		in.waiting = in.waiting[1:]
		c.held[h.delivery.Tag] = h
		batch = append(batch, h.delivery)
	}
	return batch
}

// Close implements transport.Consumer.
func (c *consumer) Close(ctx context.Context) error {
	c.takeBack(ctx, c.begunOf(maps.Values(c.held)))
	c.end()
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close consumer: %w", context.Cause(ctx))
	}
}

// end begins the end of all that belongs to the consumer.
func (c *consumer) end() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.signal()
	c.stop()
}
