package rabbitmq

import (
	"hash/maphash"
	"time"

	"github.com/gelery/gelery/transport"
)

// When a channel is lost, the broker gives everything that was held on it to somebody again, while its tasks still run
// here. If that somebody is this consumer, the new delivery takes the place of the old one: the task that runs is the
// one that will acknowledge it, and one that has ended meanwhile acknowledges it at once. Otherwise every lost
// connection would run again all that a worker has in hand, and a connection that is lost more often than a task takes
// would never see it done. What goes to another worker runs twice; that is the broker's promise, at least once.
type orphans struct {
	running map[identity][]*held       // not settled yet
	ended   map[identity][]endedOrphan // settled when it was too late
	count   int                        // of ended
}

// identity is what a message is recognized by: the same task, at the same attempt, with the same body, from the same
// queue. Headers are not compared, because the broker adds some with each delivery.
type identity struct {
	queue   string
	id      string
	retries int
	body    uint64
}

// endedOrphan is what became of a message after its channel was lost.
type endedOrphan struct {
	settlement transport.Settlement
	at         time.Time
}

// Bounds of what is remembered. A message nobody gives back within the time went to somebody else.
const (
	maxOrphans  = 10_000
	orphansLife = 10 * time.Minute
)

var seed = maphash.MakeSeed()

func identify(h *held) (identity, bool) {
	m := h.delivery.Message
	if m == nil || m.Headers.ID == "" {
		return identity{}, false
	}
	return identity{h.intake.alias, m.Headers.ID, m.Headers.Retries, maphash.Bytes(seed, m.Body)}, true
}

func (o *orphans) empty() bool { return len(o.running) == 0 && len(o.ended) == 0 }

// add remembers a delivery whose channel was lost while its task runs.
func (o *orphans) add(h *held) {
	k, ok := identify(h)
	if !ok {
		return
	}
	if o.running == nil {
		o.running = map[identity][]*held{}
	}
	o.running[k] = append(o.running[k], h)
}

// settled forgets a delivery whose task has ended; what became of it is remembered instead, for when it comes again.
// What is undone is new then.
func (o *orphans) settled(h *held, s transport.Settlement) {
	k, ok := identify(h)
	if !ok {
		return
	}
	list := o.running[k]
	for i := range list {
		if list[i] == h {
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(o.running, k)
	} else {
		o.running[k] = list
	}
	if s.Undone || s.Verdict == transport.Requeue || s.Verdict == transport.Return {
		return // to be received again is what happens to it anyway
	}
	if o.count >= maxOrphans {
		o.ended, o.count = nil, 0 // after ten thousand, the oldest are of no use; telling which is not worth a list
	}
	if o.ended == nil {
		o.ended = map[identity][]endedOrphan{}
	}
	o.ended[k] = append(o.ended[k], endedOrphan{s, time.Now()})
	o.count++
}

// adopt recognizes a delivery that has come again. ok: it is nothing new for Receive. With a settlement, its task has
// ended already. The caller holds mu.
func (c *consumer) adopt(h *held) (s *transport.Settlement, ok bool) {
	k, known := identify(h)
	if !known {
		return nil, false
	}
	o := &c.orphans
	if list := o.running[k]; len(list) > 0 {
		old := list[0]
		if o.running[k] = list[1:]; len(list) == 1 {
			delete(o.running, k)
		}
		old.Delivery, old.epoch = h.Delivery, h.epoch
		if old.parked {
			c.widen(old.epoch)
		}
		return nil, true
	}
	for list := o.ended[k]; len(list) > 0; list = o.ended[k] {
		first := list[0]
		if o.ended[k] = list[1:]; len(list) == 1 {
			delete(o.ended, k)
		}
		o.count--
		if time.Since(first.at) > orphansLife {
			continue
		}
		c.lastTag++
		h.delivery.Tag = "again-" + first.settlement.Delivery.Tag
		c.held[h.delivery.Tag] = h
		first.settlement.Delivery = &h.delivery
		return &first.settlement, true
	}
	return nil, false
}
