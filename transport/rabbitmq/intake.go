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

// intake is what a consumer receives from one queue, from Consume or Add to Cancel or Close. The goroutine that runs it
// replaces its channel as often as it is lost.
type intake struct {
	*declaration
	cancel context.CancelFunc // nothing more is to be received
	over   chan struct{}      // closed when nothing comes any more and what was not handed out has gone back
	unfit  chan struct{}      // capacity 1: the prefetch has changed

	// Guarded by the consumer's mu.
	waiting  []*held // came and not handed out
	received uint64  // deliveries ever, for the watchdog
	detached error   // why it has no channel now; nil: it has one
}

// Attached implements transport.Attached.
func (c *consumer) Attached() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, in := range c.intakes {
		if in.detached != nil {
			return fmt.Errorf("queue %q: %w", in.alias, in.detached)
		}
	}
	return nil
}

// attach notes whether an intake has a channel, or why it has none.
func (c *consumer) attach(in *intake, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	in.detached = err
}

// serve makes an intake one that Receive hands out of, and runs it from its first channel to its end.
func (c *consumer) serve(in *intake, e *epoch) {
	ctx, cancel := context.WithCancel(c.running)
	in.cancel, in.over, in.unfit = cancel, make(chan struct{}), make(chan struct{}, 1)
	c.mu.Lock()
	c.intakes = append(c.intakes, in)
	in.refit() // it may have changed since the channel was opened
	c.mu.Unlock()
	c.runs.Go(func() {
		defer cancel()
		left := c.run(ctx, in, e)
		close(in.over)
		if left != nil {
			c.outlast(in, left)
		}
	})
}

// run watches the channel of an intake and replaces it when it is lost, until ctx is done. It returns the last channel
// if the intake alone was cancelled, because deliveries may still be held on it.
func (c *consumer) run(ctx context.Context, in *intake, e *epoch) *epoch {
	pause := firstPause
	w := &watchdog{c: c, in: in}
	for {
		began := time.Now()
		err := c.watch(ctx, w, e)
		switch {
		case c.running.Err() != nil:
			c.release(e)
			return nil
		case ctx.Err() != nil:
			return c.cease(in, e)
		}
		c.lose(in, e)
		c.attach(in, err)
		c.log.Warn("consuming channel lost, opening another", "queue", in.alias, "error", err)
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		for {
			e, err = c.open(ctx, in, true)
			c.attach(in, err)
			if err == nil {
				break
			}
			if errors.Is(err, transport.ErrClosed) {
				c.end() // the transport was closed before its consumer
			}
			if ctx.Err() != nil {
				return nil
			}
			c.log.Error("cannot consume, trying again", "queue", in.alias, "error", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil
			}
			pause = min(2*pause, lastPause)
		}
	}
}

// watch waits for the end of a channel, lets its consumer grow, and ends one that has gone silent or that the broker has
// cancelled.
func (c *consumer) watch(ctx context.Context, w *watchdog, e *epoch) error {
	queue := w.in.alias
	closed := e.channel.NotifyClose(make(chan *amqp.Error, 1))
	cancelled := e.cancelled
	ticker := time.NewTicker(c.t.options.watchInterval)
	defer ticker.Stop()
	w.hungry = false
	for {
		select {
		case err := <-closed:
			return firstError(err, amqp.ErrClosed)
		case _, ok := <-cancelled:
			if !ok { // with the channel
				cancelled = nil
				continue
			}
			c.log.Warn("RabbitMQ cancelled a consumer, its queue may have been deleted; declaring it again", "queue", queue)
			e.session.shut(e.channel)
		case <-w.in.unfit:
			c.widen(e)
		case <-e.narrow:
			if err := c.grow(ctx, e, w.in); err != nil && ctx.Err() == nil && !lost(err) {
				c.log.Warn("consumer cannot be replaced by one that gets more, opening another channel", "queue", queue, "error", err)
				e.session.shut(e.channel)
			}
		case <-ticker.C:
			if why := w.look(ctx, e); why != "" {
				c.log.Error("consumer gets nothing, opening another", "queue", queue, "reason", why)
				e.session.shut(e.channel)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// lose makes orphans of what was handed out on a channel that is lost, and forgets what was not: the broker has it. What
// is only held because it is bad is forgotten too, and is judged anew when it comes again.
func (c *consumer) lose(in *intake, e *epoch) {
	close(e.next)
	c.mu.Lock()
	defer c.mu.Unlock()
	e.dead = true
	in.waiting = slices.DeleteFunc(in.waiting, func(h *held) bool { return h.epoch == e })
	for _, h := range c.held {
		if h.epoch == e && !h.leaving {
			c.abandon(h)
		}
	}
}

// abandon is what becomes of a delivery whose channel is lost. The caller holds mu.
func (c *consumer) abandon(h *held) {
	if _, bad := c.bad[h]; bad {
		delete(c.bad, h)
		delete(c.held, h.delivery.Tag)
		return
	}
	h.epoch = nil
	c.orphans.add(h)
}

// release gives back what is held by closing its channel, which the broker answers when it has also taken all
// acknowledgements before it. The consumers are cancelled first: with one that lives, a quorum queue forgets
// acknowledgements that come right before the close, and thousands of finished tasks come again (rabbitmq-server#10327).
func (c *consumer) release(e *epoch) {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	_ = c.stopDelivery(ctx, e) // the close tells
	close(e.next)
	e.session.shut(e.channel)
}

// stopDelivery cancels the broker's consumer of a channel.
func (c *consumer) stopDelivery(ctx context.Context, e *epoch) error {
	c.mu.Lock()
	tag := roundTag(e.round)
	c.mu.Unlock()
	return e.session.call(ctx, func() error { return e.channel.Cancel(tag, false) })
}
