package rabbitmq

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/transport"
)

// Native delayed delivery, the topology of Celery 5.5 and later (kombu/transport/native_delayed_delivery.py). Level k is
// a topic exchange and a queue in which messages rest for 2^k seconds. A message enters at the highest level with its
// delay in binary before its routing key, one word a digit: at each level a 1 leads into the queue and a 0 on to the
// next level, and what leaves the last one goes to the delivery exchange, to which task exchanges are bound.
const (
	delayLevels      = 28 // enough for transport.MaxDelay
	deliveryExchange = "celery_delayed_delivery"
)

// An address is the routing key that a delayed message comes back to its queue by without an exchange. Celery has no such
// thing: it delays for topic and fanout exchanges only. It is one word, so that the patterns of others ("#.mail.*") match
// it only if they are made of wildcards alone ("#"); and no task's routing key is mistaken for a queue's name.
const addressPrefix = "gelery-queue:"

// maxAddress leaves room for the digits of the delay.
const maxAddress = maxName - 2*delayLevels

// inOneWord escapes what means something in a pattern.
var inOneWord = strings.NewReplacer("%", "%25", ".", "%2E", "*", "%2A", "#", "%23")

// addressOf is the address of a queue.
func addressOf(queue string) string {
	return fitting(addressPrefix+inOneWord.Replace(queue), maxAddress)
}

// fitting is a name that is too long with a hash in place of what is too much.
func fitting(name string, limit int) string {
	if len(name) <= limit {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	hash := "~" + hex.EncodeToString(sum[:16])
	return strings.ToValidUTF8(name[:limit-len(hash)], "") + hash // no half character
}

func levelName(level int) string { return "celery_delayed_" + strconv.Itoa(level) }

// delayKey is the routing key of a delayed message.
func delayKey(delay time.Duration, key string) string {
	seconds := min(delay, transport.MaxDelay) / time.Second
	b := make([]byte, 0, 2*delayLevels+len(key))
	for level := delayLevels - 1; level >= 0; level-- {
		b = append(b, '0'+byte(seconds>>level&1), '.')
	}
	return string(append(b, key...))
}

// declareDelays makes the topology exist, in Celery's order.
func declareDelays(ch *amqp.Channel, queueType string) error {
	star := ""
	for level := delayLevels - 1; level >= 0; level-- {
		name, next := levelName(level), deliveryExchange
		if level > 0 {
			next = levelName(level - 1)
		}
		arguments := amqp.Table{
			"x-queue-type":           queueType,
			"x-overflow":             "reject-publish",
			"x-message-ttl":          int64(1000) << level,
			"x-dead-letter-exchange": next,
		}
		if queueType == "quorum" {
			arguments["x-dead-letter-strategy"] = "at-least-once"
		}
		if err := ch.ExchangeDeclare(name, amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
			return fmt.Errorf("exchange %q: %w", name, err)
		}
		if _, err := ch.QueueDeclare(name, true, false, false, false, arguments); err != nil {
			return fmt.Errorf("queue %q: %w", name, err)
		}
		if err := ch.QueueBind(name, star+"1.#", name, false, nil); err != nil {
			return fmt.Errorf("queue %q: %w", name, err)
		}
		star += "*."
	}
	star = ""
	for level := delayLevels - 1; level > 0; level-- {
		if err := ch.ExchangeBind(levelName(level-1), star+"0.#", levelName(level), false, nil); err != nil {
			return fmt.Errorf("exchange %q: %w", levelName(level-1), err)
		}
		star += "*."
	}
	if err := ch.ExchangeDeclare(deliveryExchange, amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
		return fmt.Errorf("exchange %q: %w", deliveryExchange, err)
	}
	return ch.ExchangeBind(deliveryExchange, star+"0.#", levelName(0), false, nil)
}

// topology makes the delay queues exist, once a session.
func (t *rabbitTransport) topology(ctx context.Context, l *link) error {
	return t.delays.once(ctx, l, "", func() error {
		err := l.onChannel(ctx, func(ch *amqp.Channel) error { return declareDelays(ch, t.options.delayQueueType) })
		if errors.Is(err, transport.ErrMismatch) {
			err = fmt.Errorf("%w (set the transport option native_delayed_delivery_queue_type to what the fleet uses)", err)
		}
		if err != nil {
			return fmt.Errorf("native delayed delivery: %w", err)
		}
		return nil
	})
}

// delayable binds a queue so that delayed messages reach it: as Celery does where its exchange is not a direct one, and
// by its address. Other processes, which know that it was bound, need not notice when it was deleted and made anew.
func (t *rabbitTransport) delayable(ctx context.Context, l *link, d *declaration) error {
	if err := t.topology(ctx, l); err != nil {
		return err
	}
	err := l.onChannel(ctx, func(ch *amqp.Channel) error {
		for _, b := range d.bindings {
			if b.ExchangeType == amqp.ExchangeDirect {
				continue
			}
			key := b.RoutingKey
			if !strings.HasPrefix(key, "#") {
				key = "#." + key
			}
			if err := checkShort("binding key of delayed messages", key); err != nil {
				return err
			}
			if err := ch.ExchangeBind(b.Exchange, key, deliveryExchange, false, nil); err != nil {
				return err
			}
			if d.queue == "" {
				continue
			}
			if err := ch.QueueBind(d.queue, key, b.Exchange, false, nil); err != nil {
				return err
			}
		}
		if d.queue == "" {
			return nil
		}
		return bindAddress(ch, d.queue)
	})
	if err != nil {
		return fmt.Errorf("bind to %s: %w", deliveryExchange, err)
	}
	t.mu.Lock()
	for _, b := range d.bindings {
		if b.ExchangeType != amqp.ExchangeDirect {
			t.delayed[b.Exchange] = true
		}
	}
	t.mu.Unlock()
	return nil
}

// delaysTo reports whether delayed messages reach this exchange by bindings we made.
func (t *rabbitTransport) delaysTo(exchange string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.delayed[exchange]
}

// returnAddress makes a queue reachable by its address for delayed messages, once a session, and returns the address.
func (t *rabbitTransport) returnAddress(ctx context.Context, l *link, queue string) (key string, err error) {
	if err := t.topology(ctx, l); err != nil {
		return "", err
	}
	return addressOf(queue), t.delays.once(ctx, l, queue, func() error {
		err := l.onChannel(ctx, func(ch *amqp.Channel) error { return bindAddress(ch, queue) })
		if err != nil {
			return fmt.Errorf("bind queue %q to %s: %w", queue, deliveryExchange, err)
		}
		return nil
	})
}

func bindAddress(ch *amqp.Channel, queue string) error {
	return ch.QueueBind(queue, "#."+addressOf(queue), deliveryExchange, false, nil)
}
