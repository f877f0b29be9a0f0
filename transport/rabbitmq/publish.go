package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/transport"
)

// Publish implements transport.Transport. Every message is confirmed by the broker and, unless it is Optional,
// mandatory. A confirmation that got lost with its connection makes it send the message again. While the broker takes
// no messages (a memory or disk alarm) it waits, and ends with ErrBrokerFull when ctx does.
//
// A queue that takes nothing is waited for until ctx is done, but for an Optional message only until it has refused ten
// times, a second or two, or has not confirmed for five seconds: that is ErrRefused. So is a message that is too large.
// All others of the batch have been sent when the error is ErrRefused and ctx is not done.
func (t *rabbitTransport) Publish(ctx context.Context, batch []transport.Publication) error {
	return t.publish(ctx, batch, false)
}

// publish is Publish; once: no message is written a second time unless the broker has refused it.
func (t *rabbitTransport) publish(ctx context.Context, batch []transport.Publication, once bool) error {
	out := make([]*outbound, 0, len(batch))
	for i := range batch {
		o, err := t.outbound(ctx, &batch[i])
		if err != nil {
			return t.publishError(ctx, false, err)
		}
		if o != nil {
			o.place, o.once = i, once
			out = append(out, o)
		}
	}
	if len(out) == 0 {
		return nil
	}
	doubt, err := t.publisher.publish(ctx, out)
	if err != nil {
		if errors.Is(err, transport.ErrNoRoute) {
			t.doubtTopology(batch)
		}
		p := t.publishError(ctx, doubt, err)
		p.Failed = failed(ctx, err, out)
		return p
	}
	return nil
}

// failed are the messages that were refused, or not confirmed when the context ended.
func failed(ctx context.Context, err error, out []*outbound) map[int]error {
	if ctx.Err() == nil && errors.Is(err, transport.ErrClosed) {
		return nil
	}
	all := map[int]error{}
	for _, o := range out {
		switch why := o.failure.Load(); {
		case o.confirmed.Load():
		case why != nil:
			all[o.place] = *why
		default:
			all[o.place] = err
		}
	}
	return all
}

// doubtTopology forgets that what these messages went through was there: somebody has removed it.
func (t *rabbitTransport) doubtTopology(batch []transport.Publication) {
	for i := range batch {
		t.exchanges.forget(batch[i].Exchange)
		if batch[i].Delay > 0 {
			t.delays.forget("")
			t.delays.forget(batch[i].RoutingKey)
		}
	}
}

func (t *rabbitTransport) publishError(ctx context.Context, doubt bool, err error) *transport.PublishError {
	if errors.Is(err, errNotFound) {
		err = fmt.Errorf("%w: %w", transport.ErrNoRoute, err)
	}
	if ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
		err = fmt.Errorf("%w: %w", err, context.Cause(ctx))
	}
	return &transport.PublishError{URL: t.options.url, InDoubt: doubt, Err: err}
}

// outbound makes what the publisher sends, and makes sure that sending it does no harm to others: an exchange that does
// not exist closes the channel. nil: nobody need get it, and nobody can.
func (t *rabbitTransport) outbound(ctx context.Context, p *transport.Publication) (*outbound, error) {
	if p.Exchange == "" && p.RoutingKey == "" {
		return nil, errors.New("routing key is empty; the default exchange needs the name of a queue")
	}
	m, err := publishing(p.Message)
	if err != nil {
		return nil, err
	}
	o := &outbound{exchange: p.Exchange, key: p.RoutingKey, optional: p.Optional, message: m}
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.exchange != "" {
		err := t.exists(ctx, o.exchange)
		if errors.Is(err, errNotFound) && p.Optional {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	if p.Delay >= time.Second {
		if err := t.delay(ctx, o, p.Delay); err != nil {
			return nil, err
		}
	}
	return o, o.check() // a delay makes the key longer
}

// exists fails with errNotFound unless the exchange is there, asked once a session.
func (t *rabbitTransport) exists(ctx context.Context, exchange string) error {
	return t.exchanges.once(ctx, t.publishes, exchange, func() error {
		return t.onChannel(ctx, fmt.Sprintf("exchange %q", exchange), func(ch *amqp.Channel) error {
			// A passive declaration compares nothing but the name.
			return ch.ExchangeDeclarePassive(exchange, amqp.ExchangeDirect, true, false, false, false, nil)
		})
	})
}

// delay sends a message by way of the delay queues, if it can be reached that way. Its own time to live would end its
// wait in them too early; whoever receives it looks at the expires header.
func (t *rabbitTransport) delay(ctx context.Context, o *outbound, by time.Duration) error {
	key := o.key
	switch {
	case o.exchange == "":
		var err error
		if key, err = t.returnAddress(ctx, t.operating(), o.key); err != nil {
			return err
		}
	case !t.delaysTo(o.exchange):
		return nil
	}
	o.exchange, o.key = levelName(delayLevels-1), delayKey(by, key)
	o.message.Expiration = ""
	return nil
}

// check refuses an address that AMQP has no room for: writing it would end the connection.
func (o *outbound) check() error {
	if err := checkShort("exchange", o.exchange); err != nil {
		return err
	}
	return checkShort("routing key", o.key)
}
