package rabbitmq

import (
	"context"

	"github.com/gelery/gelery/transport"
)

// What is held for a later time (Park) or because it is bad (quarantine.go) must not use up the prefetch, with all that
// is due stuck behind it. A prefetch cannot be changed, but a consumer can be cancelled and another one started on the
// same channel, where the delivery tags stay valid and only what the new one gets counts against its prefetch. That costs
// three questions to the broker, so it is done when half of the prefetch has been lost, or can be had back, and when
// SetPrefetch has changed it.

// SetPrefetch implements transport.Prefetcher. The prefetch of an exclusive or auto-deleted queue stays what it was
// until its channel is replaced.
func (c *consumer) SetPrefetch(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prefetch = min(max(n, 1), maxPrefetch)
	for _, in := range c.intakes {
		in.refit()
	}
}

// refit asks for a consumer with the present prefetch.
func (in *intake) refit() {
	select {
	case in.unfit <- struct{}{}:
	default:
	}
}

// Park implements transport.Parker.
func (c *consumer) Park(batch []*transport.Delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range batch {
		h := c.held[d.Tag]
		if h == nil {
			continue
		}
		h.parked = true
		if h.epoch != nil {
			c.widen(h.epoch)
		}
	}
}

// widen asks for growth, where there is need.
func (c *consumer) widen(e *epoch) {
	select {
	case e.narrow <- struct{}{}:
	default:
	}
}

// stays reports whether a consumer of a queue cannot be replaced: an exclusive one, since somebody else might get the queue
// in between, and one with which its queue would go.
func (in *intake) stays() bool { return in.source.Exclusive || in.source.AutoDelete }

// grow replaces the consumer of a channel, if another would get more by half a prefetch, or if that has changed.
func (c *consumer) grow(ctx context.Context, e *epoch, in *intake) error {
	if in.stays() {
		return nil
	}
	if room, may, prefetch := c.room(e, in); prefetch == e.meant && room-may < (prefetch+1)/2 {
		return nil
	}
	// Another tag, because a quorum queue would take the same one for the old consumer.
	old, round := e.round, e.round+1 // which only this goroutine changes
	if err := e.session.call(ctx, func() error { return e.channel.Cancel(roundTag(old), false) }); err != nil {
		return err
	}
	<-e.drained
	room, _, prefetch := c.room(e, in)
	room = max(room, 1) // 0 would be no bound at all
	e.meant = prefetch
	deliveries, err := c.consume(ctx, e, in.declaration, round, room)
	if err != nil {
		return err
	}
	c.mu.Lock()
	e.round, e.prefetch = round, room
	c.mu.Unlock()
	e.next <- deliveries
	return nil
}

// room is how much more may be in hand of what is not parked, how much of that the present consumer may get, and the
// prefetch that both come from.
func (c *consumer) room(e *epoch, in *intake) (room, may, prefetch int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tag := roundTag(e.round)
	room, may = c.prefetch, e.prefetch
	count := func(h *held) {
		if h.epoch != e {
			return
		}
		if !h.parked {
			room--
		}
		if h.ConsumerTag == tag {
			may--
		}
	}
	for _, h := range c.held {
		if h.intake == in {
			count(h)
		}
	}
	for _, h := range in.waiting {
		count(h)
	}
	return room, may, c.prefetch
}
