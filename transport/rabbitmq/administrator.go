package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/transport"
)

var _ transport.Administrator = (*rabbitTransport)(nil)

// exchangeTypes are those every RabbitMQ has. It ends the whole connection of who asks for another one.
var exchangeTypes = []string{"direct", "topic", "fanout", "headers"}

// DeclareExchange implements transport.Administrator. The type headers is known as well.
func (t *rabbitTransport) DeclareExchange(ctx context.Context, x transport.Exchange) error {
	if x.Type = firstOf(x.Type, amqp.ExchangeDirect); !slices.Contains(exchangeTypes, x.Type) {
		return fmt.Errorf("exchange %q: type %q is unknown; use %s", x.Name, x.Type, strings.Join(exchangeTypes, ", "))
	}
	if x.Name == "" || strings.HasPrefix(x.Name, "amq.") {
		return fmt.Errorf("exchange %q: this name and those that begin with amq. are the broker's own", x.Name)
	}
	if err := checkShort("exchange name", x.Name); err != nil {
		return err
	}
	return t.onChannel(ctx, fmt.Sprintf("declare exchange %q", x.Name), func(ch *amqp.Channel) error {
		return declareExchange(ch, x)
	})
}

// DeleteExchange implements transport.Administrator. One that does not exist is no error, as RabbitMQ has it.
func (t *rabbitTransport) DeleteExchange(ctx context.Context, name string, ifUnused bool) error {
	if err := checkShort("exchange name", name); err != nil {
		return err
	}
	err := t.onChannel(ctx, fmt.Sprintf("delete exchange %q", name), func(ch *amqp.Channel) error {
		return ch.ExchangeDelete(name, ifUnused, false)
	})
	return notNow(err, fmt.Sprintf("exchange %q", name))
}

// Bind implements transport.Administrator. Queue and exchange must exist.
func (t *rabbitTransport) Bind(ctx context.Context, queue string, b transport.Binding) error {
	return t.binding(ctx, "bind", queue, b, func(ch *amqp.Channel, arguments amqp.Table) error {
		return ch.QueueBind(queue, b.RoutingKey, b.Exchange, false, arguments)
	})
}

// Unbind implements transport.Administrator. A binding that does not exist is no error.
func (t *rabbitTransport) Unbind(ctx context.Context, queue string, b transport.Binding) error {
	return t.binding(ctx, "unbind", queue, b, func(ch *amqp.Channel, arguments amqp.Table) error {
		return ch.QueueUnbind(queue, b.RoutingKey, b.Exchange, arguments)
	})
}

func (t *rabbitTransport) binding(ctx context.Context, verb, queue string, b transport.Binding, f func(*amqp.Channel, amqp.Table) error) error {
	arguments, err := tableOf(b.Arguments)
	if err == nil {
		err = checkBinding(b)
	}
	if err == nil {
		err = checkShort("queue name", queue)
	}
	if err != nil {
		return fmt.Errorf("binding of queue %q to exchange %q: %w", queue, b.Exchange, err)
	}
	what := fmt.Sprintf("%s queue %q, exchange %q, routing key %q", verb, queue, b.Exchange, b.RoutingKey)
	return t.onChannel(ctx, what, func(ch *amqp.Channel) error { return f(ch, arguments) })
}

// DeleteQueue implements transport.Administrator. A queue that does not exist had no messages. The conditions are
// checked by the broker and hold at the moment of the deletion, but quorum queues and streams know none.
func (t *rabbitTransport) DeleteQueue(ctx context.Context, name string, ifUnused, ifEmpty bool) (int64, error) {
	if err := checkShort("queue name", name); err != nil {
		return 0, err
	}
	if ifUnused || ifEmpty {
		// RabbitMQ ends the whole connection of who asks a quorum queue for a condition.
		if told, _ := t.describe(ctx, []string{name}); told[name] != nil && told[name].Type != "" && told[name].Type != "classic" {
			return 0, unconditional(name)
		}
	}
	var n int
	err := t.onChannel(ctx, fmt.Sprintf("delete queue %q", name), func(ch *amqp.Channel) (err error) {
		n, err = ch.QueueDelete(name, ifUnused, ifEmpty, false)
		return err
	})
	if err != nil && strings.Contains(err.Error(), "not supported by quorum queues") {
		return 0, unconditional(name)
	}
	if err != nil {
		return 0, notNow(err, fmt.Sprintf("queue %q", name)) // n may still be written to
	}
	return int64(n), nil
}

func unconditional(queue string) error {
	return fmt.Errorf("queue %q is a quorum queue or a stream, and these cannot be deleted on the condition that they are unused or empty", queue)
}

// notNow tells a deletion whose condition does not hold from a mismatch, with which it shares AMQP's code.
func notNow(err error, what string) error {
	if !errors.Is(err, transport.ErrMismatch) {
		return err
	}
	text := err.Error()
	switch {
	case strings.HasSuffix(text, "in use"):
		return fmt.Errorf("%s is in use and was not deleted", what)
	case strings.HasSuffix(text, "not empty"):
		return fmt.Errorf("%s is not empty and was not deleted", what)
	}
	return err
}
