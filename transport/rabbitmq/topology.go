package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// declaration is a queue with all names filled in, as it is declared.
type declaration struct {
	queue     string // its name at the broker; "": only the exchanges
	alias     string // what callers call it
	fresh     bool   // it has another name each time: alias.<uuid>
	source    transport.Queue
	exchanges []transport.Exchange
	bindings  []transport.Binding
	arguments amqp.Table
}

// resolve fills in Celery's defaults: a direct exchange and a key of the queue's own name.
func resolve(q transport.Queue) (*declaration, error) {
	if q.Name == "" {
		return nil, errors.New("queue name is empty")
	}
	if err := checkShort("queue name", q.Name); err != nil {
		return nil, err
	}
	d := &declaration{queue: q.Name, alias: q.Name, source: q}
	var err error
	if d.arguments, err = tableOf(q.Arguments); err != nil {
		return nil, fmt.Errorf("queue %q: %w", q.Name, err)
	}
	first := transport.Binding{Exchange: firstOf(q.Exchange, q.Name), ExchangeType: q.ExchangeType, RoutingKey: q.RoutingKey}
	if q.Broadcast {
		d.queue = "bcast." + protocol.NewID()
		d.source.AutoDelete = true
		first.ExchangeType = firstOf(q.ExchangeType, amqp.ExchangeFanout)
	} else if first.RoutingKey == "" && first.ExchangeType != amqp.ExchangeFanout {
		first.RoutingKey = q.Name
	}
	bindings := q.Bindings
	if !q.Unbound {
		bindings = append([]transport.Binding{first}, bindings...)
	}
	for _, b := range bindings {
		b.ExchangeType = firstOf(b.ExchangeType, amqp.ExchangeDirect)
		switch b.ExchangeType {
		case amqp.ExchangeDirect, amqp.ExchangeTopic, amqp.ExchangeFanout:
		default:
			return nil, fmt.Errorf("queue %q: exchange type %q is not supported; use direct, topic or fanout", q.Name, b.ExchangeType)
		}
		if err := checkBinding(b); err != nil {
			return nil, fmt.Errorf("queue %q: %w", q.Name, err)
		}
		d.bindings = append(d.bindings, b)
		d.exchanges = append(d.exchanges, transport.Exchange{Name: b.Exchange, Type: b.ExchangeType})
	}
	return d, nil
}

func checkBinding(b transport.Binding) error {
	if err := checkShort("exchange name", b.Exchange); err != nil {
		return err
	}
	return checkShort("routing key", b.RoutingKey)
}

// Declare implements transport.Transport.
func (t *rabbitTransport) Declare(ctx context.Context, q transport.Queue) error {
	d, err := resolve(q)
	if err != nil {
		return err
	}
	if q.Broadcast {
		d.queue = "" // a consumer makes its own; the sender needs the exchange
	}
	return t.declare(ctx, t.operating(), d)
}

// declare makes the queue with its exchanges and bindings exist, in the order and with the properties of kombu.
func (t *rabbitTransport) declare(ctx context.Context, l *link, d *declaration) error {
	err := l.onChannel(ctx, func(ch *amqp.Channel) error {
		for _, x := range d.exchanges {
			if err := declareExchange(ch, x); err != nil {
				return fmt.Errorf("exchange %q: %w", x.Name, err)
			}
		}
		if d.queue == "" {
			return nil
		}
		q := d.source
		if _, err := ch.QueueDeclare(d.queue, !q.Transient, q.AutoDelete, q.Exclusive, false, d.arguments); err != nil {
			return err
		}
		for _, b := range d.bindings {
			arguments, err := tableOf(b.Arguments)
			if err != nil {
				return err
			}
			if err := ch.QueueBind(d.queue, b.RoutingKey, b.Exchange, false, arguments); err != nil {
				return fmt.Errorf("bind to exchange %q: %w", b.Exchange, err)
			}
		}
		return nil
	})
	if err == nil && d.source.Delayed {
		err = t.delayable(ctx, l, d)
	}
	if err != nil {
		return fmt.Errorf("queue %q: %w", d.alias, translate(err))
	}
	return nil
}

// declareExchange declares as kombu does. The exchanges of AMQP itself are there, and nobody may declare them.
func declareExchange(ch *amqp.Channel, x transport.Exchange) error {
	if x.Name == "" || strings.HasPrefix(x.Name, "amq.") {
		return nil
	}
	arguments, err := tableOf(x.Arguments)
	if err != nil {
		return err
	}
	return ch.ExchangeDeclare(x.Name, firstOf(x.Type, amqp.ExchangeDirect), !x.Transient, x.AutoDelete, false, false, arguments)
}

// tableOf makes a table of arguments. RabbitMQ compares integers by value, whatever their width, and refuses floats
// where it wants integers.
func tableOf(arguments map[string]any) (amqp.Table, error) {
	if len(arguments) == 0 {
		return nil, nil
	}
	out := make(amqp.Table, len(arguments))
	for name, v := range arguments {
		if err := checkShort("argument name", name); err != nil {
			return nil, err
		}
		argument, err := argumentOf(v)
		if err != nil {
			return nil, fmt.Errorf("argument %q: %w", name, err)
		}
		out[name] = argument
	}
	return out, nil
}

func argumentOf(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool, string, int64, int32, float64:
		return v, nil
	case int:
		return int64(v), nil
	case uint32:
		return int64(v), nil
	case uint64:
		if v <= math.MaxInt64 {
			return int64(v), nil
		}
	case map[string]any:
		return tableOf(v)
	case []string:
		out := make([]any, len(v))
		for i := range v {
			out[i] = v[i]
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i := range v {
			item, err := argumentOf(v[i])
			if err != nil {
				return nil, err
			}
			out[i] = item
		}
		return out, nil
	}
	return nil, fmt.Errorf("%v (%T) has no form in AMQP", v, v)
}
