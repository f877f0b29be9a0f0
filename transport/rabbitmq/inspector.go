package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/transport"
)

// Depths implements transport.Inspector. Messages is what the broker counts now; Unacked and ByPriority come from the
// management API, are some seconds old, and missing without it. A quorum queue's count lags behind after a restart.
func (t *rabbitTransport) Depths(ctx context.Context, queues []string) ([]transport.Depth, error) {
	names := make([]string, 0, 2*len(queues))
	for _, q := range queues {
		names = append(names, q, quarantineName(q))
	}
	told, managed := t.describe(ctx, names)
	if managed {
		// Most queues have no quarantine, and asking AMQP for what does not exist costs a channel.
		names = slices.DeleteFunc(names, func(n string) bool { return told[n] == nil && !slices.Contains(queues, n) })
	}
	looks, err := t.look(ctx, names)
	if err != nil {
		return nil, err
	}
	out := make([]transport.Depth, len(queues))
	for i, q := range queues {
		out[i] = depth(q, looks[q], looks[quarantineName(q)], told[q])
	}
	return out, nil
}

// describe is what the management API tells of the queues. False: nothing, because it does not answer or not us.
func (t *rabbitTransport) describe(ctx context.Context, names []string) (map[string]*queueInfo, bool) {
	m, err := t.management()
	if err != nil {
		return nil, false
	}
	told, err := m.describe(ctx, names)
	return told, err == nil
}

func depth(queue string, seen, quarantine look, told *queueInfo) transport.Depth {
	d := transport.Depth{Queue: queue, Messages: seen.messages, Unacked: -1, Delayed: -1, Quarantined: quarantine.messages}
	var problems []string
	if seen.err != nil {
		d.Messages = -1
		problems = append(problems, seen.err.Error())
	}
	switch {
	case errors.Is(quarantine.err, errNotFound):
		d.Quarantined = 0
	case quarantine.err != nil:
		d.Quarantined = -1
		problems = append(problems, quarantine.err.Error())
	}
	d.Error = strings.Join(problems, "; ")
	if told == nil {
		return d
	}
	if told.Unacked != nil {
		d.Unacked = *told.Unacked
	}
	for text, n := range told.Backing.Priorities {
		if p, err := strconv.Atoi(text); err == nil {
			if d.ByPriority == nil {
				d.ByPriority = map[int]int64{}
			}
			d.ByPriority[p] = n
		}
	}
	return d
}

// look is what a passive declaration tells of a queue.
type look struct {
	messages, consumers int64
	err                 error // the queue's own trouble: it does not exist, or is another connection's alone
}

// look looks at queues. One that does not exist costs the channel, and the next ones get a new one.
func (t *rabbitTransport) look(ctx context.Context, names []string) (map[string]look, error) {
	looks := make(map[string]look, len(names))
	for next := 0; next < len(names); {
		err := t.onChannel(ctx, "look at queues", func(ch *amqp.Channel) error {
			for ; next < len(names); next++ {
				if err := checkShort("queue name", names[next]); err != nil {
					looks[names[next]] = look{err: err}
					continue
				}
				q, err := ch.QueueDeclarePassive(names[next], true, false, false, false, nil)
				if err != nil {
					return err
				}
				looks[names[next]] = look{messages: int64(q.Messages), consumers: int64(q.Consumers)}
			}
			return nil
		})
		switch {
		case err == nil:
		case isVerdict(err):
			if errors.Is(err, errNotFound) {
				err = fmt.Errorf("queue %q: %w", names[next], errNotFound)
			}
			looks[names[next]] = look{err: err}
			next++
		default:
			return nil, err
		}
	}
	return looks, nil
}

// isVerdict tells the broker's answer about one queue or exchange, which costs no more than the channel.
func isVerdict(err error) bool {
	return errors.Is(err, errNotFound) || errors.Is(err, transport.ErrDenied) || errors.Is(err, transport.ErrMismatch)
}

// Queues implements transport.Inspector. AMQP cannot list queues, so it needs the management API. Queues of the
// machinery are left out: of remote control, events, delayed delivery, quarantine and the counts of Begin, the reply queues of clients, and
// those that are one connection's alone. A quarantine that holds messages names its queue even if that is gone.
func (t *rabbitTransport) Queues(ctx context.Context) ([]string, error) {
	m, err := t.management()
	if err != nil {
		return nil, err
	}
	names, quarantines := map[string]bool{}, map[string]bool{}
	err = m.queues(ctx, func(q *queueInfo) {
		if strings.HasPrefix(q.Name, quarantinePrefix) {
			if q.Messages != nil && *q.Messages > 0 {
				quarantines[q.Name] = true
			}
			return
		}
		if !q.Exclusive && !internalQueue(q.Name) {
			names[q.Name] = true
		}
	})
	if err != nil {
		return nil, err
	}
	for name := range names {
		delete(quarantines, quarantineName(name))
	}
	for name := range quarantines {
		names[strings.TrimPrefix(name, quarantinePrefix)] = true
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// Bindings implements transport.BindingLister. Like kombu's get_bindings it needs the management API.
func (t *rabbitTransport) Bindings(ctx context.Context) ([]transport.BoundQueue, error) {
	m, err := t.management()
	if err != nil {
		return nil, err
	}
	var told []struct {
		Source          string
		Destination     string
		DestinationType string `json:"destination_type"`
		RoutingKey      string `json:"routing_key"`
	}
	if err := m.get(ctx, "bindings/"+url.PathEscape(m.vhost), nil, &told); err != nil {
		return nil, err
	}
	all := make([]transport.BoundQueue, 0, len(told))
	for _, b := range told {
		if b.DestinationType == "queue" {
			all = append(all, transport.BoundQueue{Queue: b.Destination, Exchange: b.Source, RoutingKey: b.RoutingKey})
		}
	}
	return transport.SortBindings(all), nil
}

// A reply queue of the rpc backend has nothing but a UUID for a name.
var replyQueue = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func internalQueue(name string) bool {
	return strings.Contains(name, ".pidbox") || strings.HasPrefix(name, "celeryev.") || strings.HasPrefix(name, "amq.") ||
		strings.HasPrefix(name, "celery_delayed_") || strings.HasPrefix(name, begunPrefix) || replyQueue.MatchString(name)
}

// Purge implements transport.Inspector. A queue that does not exist has no messages, as for `celery purge`.
func (t *rabbitTransport) Purge(ctx context.Context, queue string) (int64, error) {
	if err := checkShort("queue name", queue); err != nil {
		return 0, err
	}
	var n int
	err := t.onChannel(ctx, "purge queue "+queue, func(ch *amqp.Channel) (err error) {
		n, err = ch.QueuePurge(queue, false)
		return err
	})
	if errors.Is(err, errNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err // n may still be written to
	}
	return int64(n), nil
}

// PurgeQuarantine implements transport.Inspector.
func (t *rabbitTransport) PurgeQuarantine(ctx context.Context, queue string) (int64, error) {
	return t.Purge(ctx, quarantineName(queue))
}

// Quarantined implements transport.Inspector. The broker hands messages out oldest first and takes them back when the
// channel closes, so all of them pass by, one at a time, and only the last ones are kept. Two who look at the same time
// see different parts.
func (t *rabbitTransport) Quarantined(ctx context.Context, queue string, limit int) ([]transport.QuarantinedMessage, error) {
	if limit <= 0 {
		return nil, nil
	}
	var last []amqp.Delivery // a ring once it is full
	seen := 0
	err := t.onChannel(ctx, "read the quarantine of queue "+queue, func(ch *amqp.Channel) error {
		last, seen = last[:0], 0
		for {
			if ctx.Err() != nil {
				return fmt.Errorf("%w after %d messages", context.Cause(ctx), seen)
			}
			d, ok, err := ch.Get(quarantineName(queue), false)
			if err != nil || !ok {
				return err
			}
			if len(last) < limit {
				last = append(last, d)
			} else {
				last[seen%limit] = d
			}
			seen++
		}
	})
	if errors.Is(err, errNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make([]transport.QuarantinedMessage, len(last))
	for i := range out {
		out[i] = quarantined(queue, &last[(seen-1-i)%len(last)])
	}
	return out, nil
}

func quarantined(queue string, d *amqp.Delivery) transport.QuarantinedMessage {
	m := transport.QuarantinedMessage{Queue: queue, Raw: d.Body, Properties: propertiesJSON(d)}
	headers, _ := rawTable(d.Headers) // of one that was cut, what there is
	if reason, ok := tableLookup(headers, reasonHeader); ok {
		m.Reason, _ = reason.(string)
	}
	if when, ok := tableLookup(headers, timeHeader); ok {
		text, _ := when.(string)
		m.Time, _ = time.Parse(time.RFC3339, text) // zero if somebody else wrote it
	}
	return m
}

// propertiesJSON renders the AMQP properties that are set, by their AMQP names.
func propertiesJSON(d *amqp.Delivery) json.RawMessage {
	p := struct {
		ContentType     string          `json:"content_type,omitempty"`
		ContentEncoding string          `json:"content_encoding,omitempty"`
		DeliveryMode    uint8           `json:"delivery_mode,omitempty"`
		Priority        uint8           `json:"priority,omitempty"`
		CorrelationID   string          `json:"correlation_id,omitempty"`
		ReplyTo         string          `json:"reply_to,omitempty"`
		Expiration      string          `json:"expiration,omitempty"`
		MessageID       string          `json:"message_id,omitempty"`
		Timestamp       string          `json:"timestamp,omitempty"`
		Type            string          `json:"type,omitempty"`
		UserID          string          `json:"user_id,omitempty"`
		AppID           string          `json:"app_id,omitempty"`
		Headers         json.RawMessage `json:"headers,omitempty"`
	}{d.ContentType, d.ContentEncoding, d.DeliveryMode, d.Priority, d.CorrelationId, d.ReplyTo, d.Expiration, d.MessageId, "",
		d.Type, d.UserId, d.AppId, nil}
	if !d.Timestamp.IsZero() {
		p.Timestamp = d.Timestamp.UTC().Format(time.RFC3339)
	}
	if raw, _ := rawTable(d.Headers); raw != nil {
		p.Headers = tableJSON(nil, raw)
	}
	text, err := json.Marshal(p)
	if err != nil { // NaN, which kombu's JSON has and Go's has not
		p.Headers = nil
		text, _ = json.Marshal(p)
	}
	return text
}
