package rabbitmq

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// subscriberBacklog is how many messages a slow subscriber may have in hand. Beyond them the broker keeps what comes,
// for as long as the queue's x-message-ttl lets it.
const subscriberBacklog = 1000

// The queue of a subscriber, as Celery's event receivers declare theirs: it goes when its connection does, and what
// nobody fetches for five seconds is of no use to anybody.
const (
	subscriberExpires = 60_000 // x-expires, milliseconds
	subscriberTTL     = 5_000  // x-message-ttl, milliseconds
)

// exchangeOf is the exchange of a broadcast as Celery declares it: celery.pidbox is a transient fanout exchange,
// reply.celery.pidbox a transient direct one, and celeryev, like any other, a durable topic exchange.
func exchangeOf(name string) transport.Exchange {
	switch {
	case protocol.IsPidboxReplyExchange(name):
		return transport.Exchange{Name: name, Type: amqp.ExchangeDirect, Transient: true}
	case strings.HasSuffix(name, ".pidbox"):
		return transport.Exchange{Name: name, Type: amqp.ExchangeFanout, Transient: true}
	}
	return transport.Exchange{Name: name, Type: amqp.ExchangeTopic}
}

// Broadcast implements transport.Transport. What was not confirmed before its channel was lost is not published again.
func (t *rabbitTransport) Broadcast(ctx context.Context, exchange, routingKey string, m *protocol.Message) error {
	if err := checkShort("exchange name", exchange); err != nil {
		return t.publishError(ctx, false, err)
	}
	err := t.exchanges.once(ctx, t.publishes, exchange, func() error {
		return t.onChannel(ctx, fmt.Sprintf("exchange %q", exchange), func(ch *amqp.Channel) error {
			return declareExchange(ch, exchangeOf(exchange))
		})
	})
	if err != nil {
		return t.publishError(ctx, false, err)
	}
	return t.publish(ctx, []transport.Publication{{Message: m, Exchange: exchange, RoutingKey: routingKey, Optional: true}}, true)
}

// subscription is a consumer of a queue of its own. After a lost connection it has another queue; what was sent in
// between is not heard.
type subscription struct {
	consumer transport.Consumer
	once     sync.Once
}

// Subscribe implements transport.Transport.
func (t *rabbitTransport) Subscribe(ctx context.Context, exchange, pattern string) (transport.Subscription, error) {
	x := exchangeOf(exchange)
	d := &declaration{
		alias: exchange, fresh: true,
		source:    transport.Queue{Name: exchange, Transient: true, AutoDelete: true, Exclusive: true},
		exchanges: []transport.Exchange{x},
		bindings:  []transport.Binding{{Exchange: exchange, ExchangeType: x.Type, RoutingKey: pattern}},
		arguments: amqp.Table{"x-expires": int64(subscriberExpires), "x-message-ttl": int64(subscriberTTL)},
	}
	if err := checkSubscription(exchange, pattern); err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	c, err := t.consume(ctx, []*declaration{d}, subscriberBacklog)
	if err != nil {
		return nil, fmt.Errorf("subscribe to exchange %q: %w", exchange, err)
	}
	return &subscription{consumer: c}, nil
}

// checkSubscription leaves room for what is added to the exchange's name in the queue's.
func checkSubscription(exchange, pattern string) error {
	if err := checkShort("queue name", exchange+"."+protocol.NewID()); err != nil {
		return err
	}
	return checkShort("pattern", pattern)
}

// Receive implements transport.Subscription. A message that came is handed out whether or not it could be acknowledged: it does not
// come again, and what is wrong with the consumer the next call tells.
func (s *subscription) Receive(ctx context.Context) (transport.Delivery, error) {
	batch, err := s.consumer.Receive(ctx, 1)
	if err != nil {
		return transport.Delivery{}, err
	}
	_, _ = s.consumer.Settle(ctx, []transport.Settlement{{Delivery: &batch[0]}})
	return batch[0], nil
}

// Close implements transport.Subscription.
func (s *subscription) Close() (err error) {
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*closeGrace+time.Second)
		defer cancel()
		err = s.consumer.Close(ctx)
	})
	return err
}
