package rabbitmq

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

// maxExpiration is the longest time to live RabbitMQ takes, in milliseconds: ten years.
const maxExpiration = 315_360_000_000

// publishing turns a message into what amqp091-go sends over a socket: the headers as Celery writes them on AMQP,
// packed for the socket to unpack, and the properties that AMQP has. With a Task, all standard headers are written,
// null where unset; without one, only those that are set. Not written are redelivered, which the broker says itself, and
// what the broker adds on the way. DeliveryMode 0 is 2; Priority is clamped to 0..255; a time to live beyond RabbitMQ's
// ten years is left out.
//
// An error names what AMQP cannot carry: an integer beyond 64 bits, a name or text property of more than 255 bytes or
// not UTF-8, an expiration that is not a number of milliseconds, headers of more than 120 KiB. A broker closes the
// connection or the channel on such things, with all that is under way there.
func publishing(m *protocol.Message) (amqp.Publishing, error) {
	p := amqp.Publishing{
		ContentType:     m.ContentType,
		ContentEncoding: m.ContentEncoding,
		DeliveryMode:    amqp.Persistent,
		Priority:        uint8(max(0, min(m.Properties.Priority, math.MaxUint8))),
		CorrelationId:   m.Properties.CorrelationID,
		ReplyTo:         m.Properties.ReplyTo,
		Body:            m.Body,
	}
	if m.Properties.DeliveryMode == int(amqp.Transient) {
		p.DeliveryMode = amqp.Transient
	}
	for _, text := range [...]struct{ name, value string }{{"content type", p.ContentType},
		{"content encoding", p.ContentEncoding}, {"correlation_id", p.CorrelationId}, {"reply_to", p.ReplyTo}} {
		if err := checkShort(text.name, text.value); err != nil {
			return amqp.Publishing{}, err
		}
	}
	if text := m.Properties.Expiration; text != "" {
		ms, err := strconv.ParseUint(text, 10, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return amqp.Publishing{}, fmt.Errorf("expiration %.40q is not a number of milliseconds", text)
		}
		if ms <= maxExpiration {
			p.Expiration = strconv.FormatUint(ms, 10) // without zeros in front there is always room for it
		}
	}
	setOther(&p, m.Properties.Extra)
	w := headerWriter{dst: make([]byte, 0, 768), h: &m.Headers, all: m.Headers.Task != ""}
	w.headers()
	if w.err == nil && len(w.dst) > maxTable {
		w.err = fmt.Errorf("headers take %d bytes: AMQP carries %d, put large data into the arguments", len(w.dst), maxTable)
	}
	if w.err != nil {
		return amqp.Publishing{}, w.err
	}
	p.Headers = amqp.Table{rawKey: w.dst}
	return p, nil
}

// checkShort checks what is to be a short string of AMQP.
func checkShort(what, text string) error {
	switch {
	case len(text) > maxName:
		return fmt.Errorf("%s %.40q has %d bytes: AMQP carries %d", what, text, len(text), maxName)
	case !validText(text):
		return fmt.Errorf("%s %.40q is not UTF-8", what, text)
	}
	return nil
}

// delivery turns what amqp091-go has received over a socket into a delivery, all but its Tag. What cannot be decoded is
// told in Err; Message then holds the headers before the defect, and Raw is the body in any case.
func delivery(d *amqp.Delivery, queue string) transport.Delivery {
	m := &decoding{Message: protocol.Message{
		ContentType:     d.ContentType,
		ContentEncoding: d.ContentEncoding,
		Body:            d.Body,
		Properties: protocol.Properties{
			CorrelationID: d.CorrelationId,
			ReplyTo:       d.ReplyTo,
			DeliveryMode:  int(d.DeliveryMode),
			Priority:      int(d.Priority),
			Expiration:    d.Expiration,
			DeliveryInfo: protocol.DeliveryInfo{
				Exchange: d.Exchange, RoutingKey: d.RoutingKey, Redelivered: d.Redelivered,
			},
			Extra: otherProperties(d),
		},
	}}
	// The address of a delayed message is that of the delay, with binary digits in the key: nothing to send a retry to.
	if d.Exchange == deliveryExchange {
		m.Properties.DeliveryInfo.Exchange, m.Properties.DeliveryInfo.RoutingKey = "", queue
	}
	raw, err := rawTable(d.Headers)
	if e := m.headers(raw); err == nil {
		err = e
	}
	redelivered := d.Redelivered || m.Headers.MarkedRedelivered()
	return transport.Delivery{Queue: queue, Message: &m.Message, Redelivered: redelivered, Raw: d.Body, Err: err}
}

// otherProperties are the properties of AMQP that Celery leaves to its callers: apply_async(app_id="…"). The user_id is told,
// and never sent on: the broker takes it only from that user.
func otherProperties(d *amqp.Delivery) (extra []protocol.Header) {
	for _, p := range [...]struct{ name, value string }{{"app_id", d.AppId}, {"message_id", d.MessageId}, {"type", d.Type}, {"user_id", d.UserId}} {
		if p.value != "" {
			extra = append(extra, protocol.Header{Name: p.name, Value: serialization.AppendString(nil, p.value)})
		}
	}
	return extra
}

// setOther sets those of the properties that a message brings along.
func setOther(p *amqp.Publishing, extra []protocol.Header) {
	for _, e := range extra {
		to := map[string]*string{"app_id": &p.AppId, "message_id": &p.MessageId, "type": &p.Type}[e.Name]
		if to == nil {
			continue
		}
		if v, err := serialization.DecodeJSON(e.Value); err == nil {
			if text, ok := v.(string); ok && checkShort(e.Name, text) == nil {
				*to = text
			}
		}
	}
}

// rawTable returns the bytes of a header table as the socket has packed them.
func rawTable(t amqp.Table) ([]byte, error) {
	if raw, ok := t[rawKey].([]byte); ok {
		return raw, nil
	}
	if raw, ok := t[cutKey].([]byte); ok {
		return raw, errors.New("headers do not fit a frame of the connection, and have been cut")
	}
	if len(t) > 0 {
		return nil, errors.New("headers did not come through a socket of this package")
	}
	return nil, nil
}

// republishing is the message of a delivery as it came, its header table byte for byte, to be sent on: to quarantine,
// or to be delayed. Headers of the same name are replaced by those of extra, which stand at the end. Left out are the
// broker's own headers and the user_id, which the broker takes only from that user.
func republishing(d *amqp.Delivery, extra ...tableEntry) amqp.Publishing {
	raw, _ := rawTable(d.Headers)
	return amqp.Publishing{
		Headers:         amqp.Table{rawKey: appendEntries(make([]byte, 0, len(raw)+128), raw, extra)},
		ContentType:     d.ContentType,
		ContentEncoding: d.ContentEncoding,
		DeliveryMode:    d.DeliveryMode,
		Priority:        d.Priority,
		CorrelationId:   d.CorrelationId,
		ReplyTo:         d.ReplyTo,
		Expiration:      d.Expiration,
		MessageId:       d.MessageId,
		Timestamp:       d.Timestamp,
		Type:            d.Type,
		AppId:           d.AppId,
		Body:            d.Body,
	}
}
