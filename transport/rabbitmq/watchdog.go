package rabbitmq

import (
	"context"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// watchdog finds a consumer that the broker has forgotten without a word: messages wait, the consumer could take some,
// and it gets none. After a leader change of a quorum queue, or when a queue's process was restarted, that has happened.
type watchdog struct {
	c        *consumer
	epoch    *epoch
	received uint64 // at the look before
	hungry   bool   // at the look before, messages were waiting that we could have got
}

// look is called at intervals. It returns what is wrong, or "". One look is no proof: what it sees may be on its way.
func (w *watchdog) look(ctx context.Context) string {
	w.c.mu.Lock()
	received, idle := w.c.received, w.c.idle()
	w.c.mu.Unlock()
	quiet := received == w.received
	w.received = received
	if !quiet || !idle {
		w.hungry = false
		return ""
	}
	ready, queue := 0, ""
	for _, d := range w.c.queues {
		if d.arguments["x-single-active-consumer"] == true {
			continue // it is another's turn
		}
		ctx, cancel := context.WithTimeout(ctx, w.c.t.options.watchInterval)
		err := w.c.link.onChannel(ctx, func(ch *amqp.Channel) error {
			q, err := ch.QueueDeclarePassive(d.queue, !d.source.Transient, d.source.AutoDelete, d.source.Exclusive, false, nil)
			if q.Messages > ready {
				ready, queue = q.Messages, d.alias
			}
			return err
		})
		cancel()
		if err != nil {
			continue // not there, or no answer: the channel's own end will tell
		}
	}
	w.c.mu.Lock()
	quiet = w.c.received == received
	w.c.mu.Unlock()
	was := w.hungry
	w.hungry = quiet && ready > 0
	if was && w.hungry {
		return fmt.Sprintf("%d messages wait in queue %s", ready, queue)
	}
	return ""
}

// idle reports that the broker may deliver: no queue's share of the prefetch is used up. The caller holds mu.
func (c *consumer) idle() bool {
	count := make([]int, len(c.queues))
	for i := range c.waiting {
		count[i] = len(c.waiting[i])
	}
	for _, h := range c.held {
		if h.epoch != nil {
			count[h.queue]++
		}
	}
	for _, n := range count {
		if n >= c.prefetch {
			return false
		}
	}
	return true
}
