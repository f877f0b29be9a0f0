package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

const (
	publisherSlots = 16      // publishes under way at once; more wait for a slot
	publishChunk   = 500     // envelopes in one script call
	publishBytes   = 8 << 20 // bytes in one script call, unless one envelope is larger
	markerSeconds  = 120     // how long a publisher's marker outlives its last publish
)

// publisher sends batches, each exactly once even when a reply is lost. It owns the slots: whoever holds one is the
// only one to use its number, so the numbers of a slot reach Redis in order.
type publisher struct {
	t     *redisTransport
	id    string
	slots chan *publisherSlot
}

type publisherSlot struct {
	marker string
	seq    uint64
}

func newPublisher(t *redisTransport) *publisher {
	p := &publisher{t: t, id: uuid.NewString(), slots: make(chan *publisherSlot, publisherSlots)}
	for i := range publisherSlots {
		p.slots <- &publisherSlot{marker: t.keys.publisher(p.id, i)}
	}
	return p
}

// outgoing is one envelope with the list it goes to.
type outgoing struct {
	list     string
	envelope []byte
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
	// Messages of one list travel in one push; the order within a list stays.
	if len(out) > 1 {
		slices.SortStableFunc(out, func(a, b outgoing) int {
			switch {
			case a.list < b.list:
				return -1
			case a.list > b.list:
				return 1
			}
			return 0
		})
	}
	for sent := 0; sent < len(out); {
		n, size := 0, 0
		for n < publishChunk && sent+n < len(out) && (n == 0 || size+len(out[sent+n].envelope) <= publishBytes) {
			size += len(out[sent+n].envelope)
			n++
		}
		if inDoubt, err := t.publisher.push(ctx, out[sent:sent+n]); err != nil {
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

// push sends one script call's worth and repeats it, under the same number, until Redis has answered.
func (p *publisher) push(ctx context.Context, out []outgoing) (inDoubt bool, err error) {
	var slot *publisherSlot
	select {
	case slot = <-p.slots:
	default:
		select {
		case slot = <-p.slots:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
	defer func() { p.slots <- slot }()
	slot.seq++
	keys := make([]string, 1, 2)
	keys[0] = slot.marker
	args := make([]any, 0, len(out)+3)
	args = append(args, strconv.FormatUint(slot.seq, 10), markerSeconds)
	for i := 0; i < len(out); {
		j := i
		for j < len(out) && out[j].list == out[i].list {
			j++
		}
		keys = append(keys, out[i].list)
		args = append(args, j-i)
		for ; i < j; i++ {
			args = append(args, out[i].envelope)
		}
	}
	err = redisconn.Do(ctx, p.t.log, "publish", func(ctx context.Context) error {
		err := publishScript.Run(ctx, p.t.commands, keys, args...).Err()
		inDoubt = inDoubt || redisconn.InDoubt(err)
		return err
	})
	return inDoubt, err
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
		if len(queues) == 0 {
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
		out = append(out, outgoing{t.keys.listFor(q, &m.Properties), protocol.AppendEnvelope(nil, &m)})
	}
	return out, nil
}
