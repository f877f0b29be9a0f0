package rabbitmq

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/transport"
)

// Headers of a message in quarantine, beside its own.
const (
	reasonHeader = "x-gelery-reason"
	timeHeader   = "x-gelery-time" // RFC 3339, UTC
)

// quarantineName is the queue that bad messages of a queue are moved to. It is a queue like any other: it can be read,
// shovelled and purged with RabbitMQ's own tools. A name that would be too long has a hash at its end.
func quarantineName(queue string) string { return fitting(quarantinePrefix+queue, maxName) }

const quarantinePrefix = "_gelery.quarantine."

// A message that cannot be put in quarantine (the broker has an alarm, the user may not, the queue there is full) stays
// held, beside the prefetch, and is tried again until the consumer is closed. Nothing waits for it: with one bad message
// in its way, a worker would stop.
const (
	quarantinePatience = 5 * time.Second // of one attempt
	firstInsistence    = time.Second     // the pause before the next, which doubles
	lastInsistence     = 30 * time.Second
	insistTogether     = 256    // messages of one attempt
	maxBad             = 10_000 // messages beside the prefetch; more count against it like any other
)

// setAside puts bad deliveries in quarantine, or keeps them for later if that does not work just now.
func (c *consumer) setAside(ctx context.Context, batch []settling) (lost int) {
	byQueue := make(map[*intake][]settling, 1)
	for _, s := range batch {
		byQueue[s.intake] = append(byQueue[s.intake], s)
	}
	for in, list := range byQueue {
		blocked, _ := c.t.publishes.flow()
		if blocked || len(c.badOf(in)) > 0 {
			c.keepBad(list)
			continue
		}
		gone, err := c.quarantine(ctx, in, list)
		if err != nil {
			c.log.Error("bad messages cannot be put in quarantine; they are held, and tried again", "queue", in.alias, "error", err)
		}
		lost += gone
	}
	return lost
}

// quarantine copies messages of one queue to where an operator finds them and acknowledges those that are safe there. It
// keeps the others, and err says why.
func (c *consumer) quarantine(ctx context.Context, in *intake, batch []settling) (lost int, err error) {
	ctx, cancel := context.WithTimeout(ctx, quarantinePatience)
	defer cancel()
	name := quarantineName(in.alias)
	now := time.Now().UTC().Format(time.RFC3339Nano)
	errs := make([]error, len(batch))
	var all sync.WaitGroup // each alone, since one that is refused must not cast doubt on the others
	for j, s := range batch {
		m := republishing(&s.held.Delivery, tableEntry{reasonHeader, s.Reason}, tableEntry{timeHeader, now})
		m.Expiration, m.DeliveryMode = "", amqp.Persistent
		all.Go(func() { errs[j] = c.copyAside(ctx, in, &outbound{key: name, message: m}) })
	}
	all.Wait()
	var moved, left []settling
	for j, s := range batch {
		if errs[j] != nil {
			left, err = append(left, s), errs[j]
			continue
		}
		s.Verdict = transport.Ack // the copy is safe
		moved = append(moved, s)
	}
	c.keepBad(left)
	return c.apply(moved), err
}

// Quarantine implements transport.Quarantiner.
func (c *consumer) Quarantine(ctx context.Context, d *transport.Delivery, reason string) error {
	m := *d.Message
	m.Properties.Expiration, m.Properties.DeliveryMode = "", int(amqp.Persistent)
	p, err := publishing(&m)
	if err != nil {
		return err
	}
	raw, _ := rawTable(p.Headers)
	p.Headers = amqp.Table{rawKey: appendEntries(make([]byte, 0, len(raw)+256), raw, []tableEntry{{reasonHeader, reason},
		{timeHeader, time.Now().UTC().Format(time.RFC3339Nano)}})}
	in := &intake{declaration: &declaration{alias: d.Queue}} // cancelled since
	c.mu.Lock()
	for _, i := range c.intakes {
		if i.alias == d.Queue {
			in = i
		}
	}
	c.mu.Unlock()
	return c.copyAside(ctx, in, &outbound{key: quarantineName(d.Queue), message: p})
}

// badOf are the bad deliveries kept of a queue.
func (c *consumer) badOf(in *intake) (list []settling) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for h, s := range c.bad {
		if h.intake == in && !h.leaving {
			list = append(list, settling{s, h})
		}
	}
	return list
}

// keepBad keeps bad deliveries for another attempt.
func (c *consumer) keepBad(batch []settling) {
	if len(batch) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range batch {
		s.leaving = false
		c.bad[s.held] = s.Settlement
		switch {
		case s.epoch.dead:
			c.abandon(s.held)
		case len(c.bad) <= maxBad:
			s.parked = true
			c.widen(s.epoch)
		}
	}
	select {
	case c.kept <- struct{}{}:
	default:
	}
}

// insist is the actor that tries again to put bad messages in quarantine, until ctx is done.
func (c *consumer) insist(ctx context.Context) {
	for {
		select {
		case <-c.kept:
		case <-ctx.Done():
			return
		}
		for pause := firstInsistence; len(c.withBad()) > 0; pause = min(2*pause, lastInsistence) {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			for blocked, changed := c.t.publishes.flow(); blocked; blocked, changed = c.t.publishes.flow() {
				select {
				case <-changed:
				case <-ctx.Done():
					return
				}
			}
			for _, in := range c.withBad() {
				c.tryAgain(ctx, in)
			}
		}
	}
}

// withBad are the intakes of which bad deliveries are kept; they may have been cancelled.
func (c *consumer) withBad() (list []*intake) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for h := range c.bad {
		if !slices.Contains(list, h.intake) {
			list = append(list, h.intake)
		}
	}
	return list
}

// tryAgain tries to put what is kept of a queue in quarantine, as long as that works.
func (c *consumer) tryAgain(ctx context.Context, in *intake) {
	list := c.badOf(in)
	for part := range slices.Chunk(list, insistTogether) {
		c.mu.Lock()
		part = slices.DeleteFunc(part, func(s settling) bool {
			if _, still := c.bad[s.held]; !still {
				return true
			}
			delete(c.bad, s.held)
			s.leaving = true
			return false
		})
		c.mu.Unlock()
		if _, err := c.quarantine(ctx, in, part); err != nil {
			if ctx.Err() == nil {
				c.log.Error("bad messages still cannot be put in quarantine", "queue", in.alias, "held", len(c.badOf(in)), "error", err)
			}
			return
		}
	}
	if len(list) > 0 {
		c.log.Info("bad messages were put in quarantine", "queue", in.alias, "messages", len(list))
	}
}

// lookLimit is how often a quarantined message may be looked at: a quorum queue counts each time as a delivery, and
// drops what has been delivered more often than its limit, from RabbitMQ 4 on after twenty times unless told otherwise.
const lookLimit = 1_000_000

// copyAside publishes to a quarantine queue, which is of the type of the queue it serves. One that was removed meanwhile
// is made again.
func (c *consumer) copyAside(ctx context.Context, in *intake, out *outbound) error {
	name := out.key
	for attempt := 0; ; attempt++ {
		err := c.t.aside.once(ctx, c.link, name, func() error {
			arguments := amqp.Table{}
			if in.arguments["x-queue-type"] == "quorum" {
				arguments["x-queue-type"], arguments["x-delivery-limit"] = "quorum", int64(lookLimit)
			}
			return c.link.onChannel(ctx, func(ch *amqp.Channel) error {
				_, err := ch.QueueDeclare(name, true, false, false, false, arguments)
				return err
			})
		})
		if errors.Is(err, transport.ErrMismatch) {
			err = nil // it is there, and that is enough
		}
		if err == nil {
			_, err = c.t.publisher.publish(ctx, []*outbound{out})
		}
		if err == nil || attempt > 0 || !errors.Is(err, transport.ErrNoRoute) {
			return err
		}
		c.t.aside.forget(name)
	}
}
