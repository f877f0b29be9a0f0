package redis

import (
	"context"
	"errors"
	"fmt"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// outgoing is one envelope with the list it goes to.
type outgoing struct {
	list     string
	envelope []byte
	once     string // the key that tells that it is there; "": see publisher
}

// Publish implements transport.Transport.
func (t *redisTransport) Publish(ctx context.Context, batch []transport.Publication) error {
	out := make([]outgoing, 0, len(batch))
	for i := range batch {
		var err error
		if out, err = t.route(ctx, out, &batch[i]); err != nil {
			return t.publishError(err, false)
		}
	}
	for sent := 0; sent < len(out); {
		n := chunk(out[sent:])
		push := t.publisher.push
		if out[sent].once != "" {
			push = t.pushOnce
		}
		if inDoubt, err := push(ctx, out[sent:sent+n]); err != nil {
			return t.publishError(err, sent > 0 || inDoubt)
		}
		sent += n
	}
	return nil
}

func (t *redisTransport) publishError(err error, inDoubt bool) error {
	if redisconn.Classify(err) == redisconn.Full {
		err = errors.Join(transport.ErrBrokerFull, err)
	}
	return &transport.PublishError{URL: t.conn.Redacted(), InDoubt: inDoubt, Err: err}
}

// route appends the envelopes of a publication, one for each queue it reaches, each with a delivery tag of its own:
// two messages of one tag would overwrite each other in a Python worker's unacked hash.
func (t *redisTransport) route(ctx context.Context, out []outgoing, p *transport.Publication) ([]outgoing, error) {
	queues := []string{p.RoutingKey}
	if p.Exchange != "" {
		var err error
		if queues, err = t.bindings.match(ctx, p.Exchange, p.RoutingKey); err != nil {
			return out, err
		}
		if len(queues) == 0 && !p.Optional {
			return out, fmt.Errorf("exchange %q, routing key %q: %w", p.Exchange, p.RoutingKey, transport.ErrNoRoute)
		}
	} else if p.RoutingKey == "" {
		return out, errors.New("routing key is empty: no queue to publish to")
	}
	m := *p.Message
	m.Properties.DeliveryInfo = protocol.DeliveryInfo{Exchange: p.Exchange, RoutingKey: p.RoutingKey}
	for _, q := range queues {
		if m.Properties.DeliveryTag == "" || len(queues) > 1 {
			m.Properties.DeliveryTag = protocol.NewID()
		}
		size := envelopeSize + len(m.Body)*4/3
		o := outgoing{list: t.keys.listFor(q, &m.Properties), envelope: protocol.AppendEnvelope(make([]byte, 0, size), &m)}
		if p.Once {
			o.once = t.keys.once(o.list, m.Headers.ID)
		}
		out = append(out, o)
	}
	return out, nil
}

// envelopeSize is about what an envelope takes beside its body; a guess that saves growing.
const envelopeSize = 1024
