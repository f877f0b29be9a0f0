package rabbitmq

import (
	"context"
	"fmt"
	"sync/atomic"
)

// watchdog finds a consumer that the broker has forgotten without a word: messages wait, the consumer could take some,
// and it gets none. After a leader change of a quorum queue, or when a queue's process was restarted, that has happened.
type watchdog struct {
	c        *consumer
	in       *intake
	received uint64        // at the look before
	hungry   bool          // at the look before, messages were waiting that we could have got
	asking   chan struct{} // closed with the answer to the last question; nil: there was none
}

// look is called at intervals. It returns what is wrong, or "". One look is no proof: what it sees may be on its way.
func (w *watchdog) look(ctx context.Context, e *epoch) string {
	received, idle := w.c.state(e, w.in)
	quiet := received == w.received
	w.received = received
	d := w.in.declaration
	if !quiet || !idle || d.arguments["x-single-active-consumer"] == true { // it is another's turn
		w.hungry = false
		return ""
	}
	ready := w.ask(ctx, e.session, d)
	received, _ = w.c.state(e, w.in)
	was := w.hungry
	w.hungry = received == w.received && ready > 0
	if was && w.hungry {
		return fmt.Sprintf("%d messages wait in queue %s", ready, d.alias)
	}
	return ""
}

// ask tells how many messages wait in a queue; 0 if it is not there or does not answer: the channel's own end will tell.
// A question that is not answered is not asked again until it is, because each would keep one of the session's calls.
func (w *watchdog) ask(ctx context.Context, s *session, d *declaration) (ready int) {
	select {
	case <-w.asking:
	default:
		if w.asking != nil {
			return 0
		}
	}
	asked, answer := make(chan struct{}), 0
	ctx, cancel := context.WithTimeout(ctx, w.c.t.options.watchInterval)
	defer cancel()
	w.asking = asked
	var begun atomic.Bool
	err := s.call(ctx, func() error {
		begun.Store(true)
		defer close(asked)
		ch, err := s.Channel()
		if err != nil {
			return err
		}
		q, err := ch.QueueDeclarePassive(d.queue, !d.source.Transient, d.source.AutoDelete, d.source.Exclusive, false, nil)
		answer = q.Messages
		_ = ch.Close()
		return err
	})
	if !begun.Load() {
		w.asking = nil
	}
	if err != nil {
		return 0
	}
	return answer
}

// state tells how much has come from a queue, and whether more may come: its prefetch is not used up.
func (c *consumer) state(e *epoch, in *intake) (received uint64, idle bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, tag := len(in.waiting), roundTag(e.round)
	for _, h := range c.held {
		if h.intake == in && h.epoch == e && h.ConsumerTag == tag {
			n++
		}
	}
	return in.received, n < e.prefetch
}
