package rabbitmq

import (
	"context"
	"hash/maphash"
	"sync"

	"github.com/gelery/gelery/transport"
)

// maxLanes bounds the channels that one connection publishes on.
const maxLanes = 16

// destination is where a message goes: an exchange, or a queue on the default exchange.
type destination struct{ exchange, queue string }

func (o *outbound) destination() destination {
	if o.exchange == "" {
		return destination{queue: o.key}
	}
	return destination{exchange: o.exchange}
}

// lanes are the publishers of one connection, each with a channel of its own. Confirmations of one channel are told in
// order, so that a queue which confirms nothing (a quorum queue without its majority) would hold up whoever shares its
// channel. The first destinations have a lane each; later ones share them.
type lanes struct {
	link *link
	gone func(exchange string) // told that an exchange is not there

	mu     sync.Mutex
	closed bool
	lanes  []*publisher
	of     map[destination]*publisher // of the first maxLanes
}

func newLanes(l *link, gone func(exchange string)) *lanes {
	return &lanes{link: l, gone: gone, of: map[destination]*publisher{}}
}

// lane returns the publisher for a destination; nil when all are closed.
func (l *lanes) lane(d destination) *publisher {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.of[d]
	switch {
	case l.closed:
		return nil
	case p != nil:
	case len(l.lanes) < maxLanes:
		p = newPublisher(l.link, l.gone)
		l.lanes, l.of[d] = append(l.lanes, p), p
	default:
		p = l.lanes[maphash.Comparable(seed, d)%maxLanes]
	}
	return p
}

// publish is publisher's, over as many lanes as the batch needs.
func (l *lanes) publish(ctx context.Context, batch []*outbound) (doubt bool, err error) {
	byLane := make(map[*publisher][]*outbound, 1)
	for _, o := range batch {
		p := l.lane(o.destination())
		if p == nil {
			return false, transport.ErrClosed
		}
		byLane[p] = append(byLane[p], o)
	}
	var (
		wait sync.WaitGroup
		mu   sync.Mutex
		some bool
	)
	one := func(p *publisher, part []*outbound) {
		d, e := p.publish(ctx, part)
		mu.Lock()
		defer mu.Unlock()
		some, doubt = some || e == nil, doubt || d
		if err == nil {
			err = e
		}
	}
	for p, part := range byLane {
		if len(byLane) == 1 {
			one(p, part)
		} else {
			wait.Go(func() { one(p, part) })
		}
	}
	wait.Wait()
	return err != nil && (doubt || some), err
}

// stop makes all lanes end.
func (l *lanes) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, p := range l.lanes {
		p.cancel()
	}
}

// wait waits for their end, at most until ctx is done. One that writes to a broker which does not read ends with the
// connection.
func (l *lanes) wait(ctx context.Context) error {
	for _, p := range l.lanes { // there are no new ones after stop
		select {
		case <-p.ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
