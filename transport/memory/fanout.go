package memory

import (
	"context"
	"strings"
	"sync"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// subscriberBacklog bounds what a slow subscriber may have waiting; beyond it the newest is dropped, as a broker would
// drop the subscriber.
const subscriberBacklog = 1000

type subscription struct {
	b        *broker
	exchange string
	pattern  []string
	ch       chan []byte
	once     sync.Once
	closed   chan struct{}
}

// Broadcast implements transport.Transport.
func (t memoryTransport) Broadcast(_ context.Context, exchange, routingKey string, m *protocol.Message) error {
	c := *m
	c.Properties.DeliveryInfo = protocol.DeliveryInfo{Exchange: exchange, RoutingKey: routingKey}
	raw := protocol.AppendEnvelope(nil, &c)
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	t.b.tell(exchange, routingKey, raw)
	return nil
}

// tell hands a message to who subscribes to it. The caller holds mu.
func (b *broker) tell(exchange, routingKey string, raw []byte) {
	for s := range b.subscribers {
		if s.exchange == exchange && topicMatches(s.pattern, words(routingKey)) {
			select {
			case s.ch <- raw:
			default:
			}
		}
	}
}

// Subscribe implements transport.Transport.
func (t memoryTransport) Subscribe(_ context.Context, exchange, pattern string) (transport.Subscription, error) {
	s := &subscription{b: t.b, exchange: exchange, pattern: words(pattern), ch: make(chan []byte, subscriberBacklog), closed: make(chan struct{})}
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	t.b.subscribers[s] = true
	return s, nil
}

// words splits a key; the empty key has no words.
func words(key string) []string {
	if key == "" {
		return nil
	}
	return strings.Split(key, ".")
}

// Receive implements transport.Subscription.
func (s *subscription) Receive(ctx context.Context) (transport.Delivery, error) {
	select {
	case raw := <-s.ch:
		d := transport.Delivery{Raw: raw}
		d.Message, d.Err = protocol.DecodeEnvelope(raw)
		return d, nil
	case <-s.closed:
		return transport.Delivery{}, transport.ErrClosed
	case <-ctx.Done():
		return transport.Delivery{}, context.Cause(ctx)
	}
}

// Close implements transport.Subscription.
func (s *subscription) Close() error {
	s.once.Do(func() {
		s.b.mu.Lock()
		delete(s.b.subscribers, s)
		s.b.mu.Unlock()
		close(s.closed)
	})
	return nil
}
