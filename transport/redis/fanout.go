package redis

import (
	"context"
	"fmt"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// Broadcast implements transport.Transport: PUBLISH to the exchange's channel. It is not repeated after a lost reply:
// who listens now hears it once or not at all, as with Python.
func (t *redisTransport) Broadcast(ctx context.Context, exchange, routingKey string, m *protocol.Message) error {
	c := *m
	c.Properties.DeliveryInfo = protocol.DeliveryInfo{Exchange: exchange, RoutingKey: routingKey}
	kept, _ := broadcasts.Get().(*[]byte)
	if kept == nil {
		kept = new([]byte)
	}
	envelope := protocol.AppendEnvelope((*kept)[:0], &c)
	if err := t.commands.Publish(ctx, t.keys.channel(exchange, routingKey), envelope).Err(); err != nil {
		return t.publishError(err, redisconn.InDoubt(err)) // its memory is not used again
	}
	if cap(envelope) <= keptBroadcast {
		*kept = envelope
		broadcasts.Put(kept)
	}
	return nil
}

// broadcasts are envelopes, *[]byte, whose memory is used again: a busy worker's lists of events are its largest messages.
var broadcasts sync.Pool

// keptBroadcast is the largest envelope that is kept, in bytes.
const keptBroadcast = 1 << 20

// subscription is an open PSUBSCRIBE on a connection of its own. go-redis subscribes again after a reconnect.
type subscription struct {
	client goredis.UniversalClient
	pubsub *goredis.PubSub
	ch     <-chan *goredis.Message
	once   sync.Once
}

// Subscribe implements transport.Transport.
func (t *redisTransport) Subscribe(ctx context.Context, exchange, pattern string) (transport.Subscription, error) {
	if protocol.IsPidboxReplyExchange(exchange) {
		return t.openMailbox(ctx, exchange, pattern)
	}
	client := t.conn.Client(redisconn.ClientOptions{PoolSize: 1, Blocking: true})
	s := &subscription{client: client}
	err := redisconn.Do(ctx, t.log, "subscribe", func(ctx context.Context) error {
		if s.pubsub != nil {
			_ = s.pubsub.Close()
		}
		s.pubsub = client.PSubscribe(ctx, t.keys.pattern(exchange, pattern))
		_, err := s.pubsub.Receive(ctx)
		return err
	})
	if err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("subscribe to exchange %q: %w", exchange, err)
	}
	s.ch = s.pubsub.Channel(goredis.WithChannelSize(1000), goredis.WithChannelHealthCheckInterval(10*time.Second))
	return s, nil
}

// Receive implements transport.Subscription.
func (s *subscription) Receive(ctx context.Context) (transport.Delivery, error) {
	select {
	case m, ok := <-s.ch:
		if !ok {
			return transport.Delivery{}, transport.ErrClosed
		}
		d := transport.Delivery{Raw: []byte(m.Payload)}
		d.Message, d.Err = protocol.DecodeEnvelope(d.Raw)
		return d, nil
	case <-ctx.Done():
		return transport.Delivery{}, context.Cause(ctx)
	}
}

// Close implements transport.Subscription.
func (s *subscription) Close() error {
	var err error
	s.once.Do(func() {
		if s.pubsub != nil {
			err = s.pubsub.Close()
		}
		_ = s.client.Close()
	})
	return err
}
