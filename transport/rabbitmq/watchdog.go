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
	queue    int
	received uint64 // at the look before
	hungry   bool   // at the look before, messages were waiting that we could have got
}

// look is called at intervals. It returns what is wrong, or "". One look is no proof: what it sees may be on its way.
func (w *watchdog) look(ctx context.Context) string {
	received, idle := w.c.state(w.queue)
	quiet := received == w.received
	w.received = received
	d := w.c.queues[w.queue]
	if !quiet || !idle || d.arguments["x-single-active-consumer"] == true { // it is another's turn
		w.hungry = false
		return ""
	}
	ready := 0
	ctx, cancel := context.WithTimeout(ctx, w.c.t.options.watchInterval)
	defer cancel()
	err := w.c.link.onChannel(ctx, func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(d.queue, !d.source.Transient, d.source.AutoDelete, d.source.Exclusive, false, nil)
		ready = q.Messages
		return err
	})
	if err != nil {
		return "" // not there, or no answer: the channel's own end will tell
	}
	received, _ = w.c.state(w.queue)
	was := w.hungry
	w.hungry = received == w.received && ready > 0
	if was && w.hungry {
		return fmt.Sprintf("%d messages wait in queue %s", ready, d.alias)
	}
	return ""
}

// state tells how much has come from a queue, and whether more may come: its prefetch is not used up.
func (c *consumer) state(queue int) (received uint64, idle bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.waiting[queue])
	for _, h := range c.held {
		if h.queue == queue && h.epoch != nil {
			n++
		}
	}
	return c.received[queue], n < c.prefetch
}
