package rabbitmq

import (
	"context"
	"fmt"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/transport"
)

// Add implements transport.Consumer. The queue has a channel of its own and the prefetch that Consume was told. A
// connection that is lost meanwhile is waited for, until ctx is done; a queue that exists with other properties is an
// error that wraps ErrMismatch.
func (c *consumer) Add(ctx context.Context, q transport.Queue) error {
	d, err := resolve(q)
	if err != nil {
		return err
	}
	if !c.enter() {
		return transport.ErrClosed
	}
	defer c.runs.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.running, cancel)()
	if err := c.change(ctx); err != nil {
		return err
	}
	defer c.changed()
	if c.find(d.alias) != nil {
		return nil
	}
	in := &intake{declaration: d}
	e, err := c.begin(ctx, in)
	switch {
	case err != nil && c.running.Err() != nil:
		return transport.ErrClosed
	case err != nil:
		return err
	}
	c.serve(in, e)
	return nil
}

// Cancel implements transport.Consumer. The broker's consumer is cancelled first, then what it has sent and Receive has
// not handed out is given back, each message to its place. The channel stays until the last delivery held on it is
// settled; one that is lost is not replaced. If ctx ends before the broker has answered, that is an error, but nothing
// is received from the queue any more either way.
func (c *consumer) Cancel(ctx context.Context, queue string) error {
	if err := c.change(ctx); err != nil {
		return err
	}
	defer c.changed()
	in := c.find(queue)
	if in == nil {
		return nil
	}
	c.mu.Lock()
	c.intakes = slices.DeleteFunc(c.intakes, func(other *intake) bool { return other == in })
	c.mu.Unlock()
	in.cancel()
	select {
	case <-in.over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cancel queue %q: the broker did not answer in time: %w", queue, context.Cause(ctx))
	}
}

// enter makes Close wait for a call, which tells runs when it is done. false: the consumer is closed.
func (c *consumer) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.runs.Add(1) // insist is there as long as closed is not set, so it is not the first
	return true
}

// change waits for the right to add or cancel a queue, which changed gives back.
func (c *consumer) change(ctx context.Context) error {
	select {
	case c.changing <- struct{}{}:
		return nil
	case <-c.running.Done():
		return transport.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *consumer) changed() { <-c.changing }

// find returns the intake of a queue, nil if there is none that Receive serves.
func (c *consumer) find(queue string) *intake {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.IndexFunc(c.intakes, func(in *intake) bool { return in.alias == queue }); i >= 0 {
		return c.intakes[i]
	}
	return nil
}

// cease ends the delivery of a cancelled queue and gives back what has not been handed out. It returns the channel, on
// which deliveries may still be held; nil if it is closed.
func (c *consumer) cease(in *intake, e *epoch) *epoch {
	ctx, cancel := context.WithTimeout(c.running, openPause)
	defer cancel()
	err := c.stopDelivery(ctx, e)
	if err == nil {
		<-e.drained // which take tells soon after the broker's answer, and at the latest when the connection is lost
		c.giveBack(in, e)
		return e
	}
	if c.running.Err() == nil {
		c.log.Warn("queue cannot be cancelled, closing its channel", "queue", in.alias, "error", err)
	}
	e.session.shut(e.channel)
	c.lose(in, e)
	return nil
}

// giveBack returns what waits for Receive to its queue.
func (c *consumer) giveBack(in *intake, e *epoch) {
	c.mu.Lock()
	e.ceased = true
	batch := make([]settling, 0, len(in.waiting))
	for _, h := range in.waiting {
		h.leaving = true
		c.held[h.delivery.Tag] = h // until the broker is told, nothing newer may be acknowledged together with older ones
		batch = append(batch, settling{transport.Settlement{Delivery: &h.delivery, Verdict: transport.Return}, h})
	}
	in.waiting = nil
	c.mu.Unlock()
	c.apply(batch)
}

// outlast keeps the channel of a cancelled queue until nothing is held on it, it is lost, or the consumer is closed.
func (c *consumer) outlast(in *intake, e *epoch) {
	closed := e.channel.NotifyClose(make(chan *amqp.Error, 1))
	for c.holds(e) {
		select {
		case <-e.narrow: // something was settled
		case err := <-closed:
			c.lose(in, e)
			c.log.Warn("channel of a cancelled queue lost, what was held of it comes again", "queue", in.alias, "error", firstError(err, amqp.ErrClosed))
			return
		case <-c.running.Done():
			c.release(e)
			return
		}
	}
	c.release(e)
}

// holds tells whether anything is held on a channel.
func (c *consumer) holds(e *epoch) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.held {
		if h.epoch == e {
			return true
		}
	}
	return false
}
