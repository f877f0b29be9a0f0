package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/benchmarks/internal/lab"
)

// minimalPublish takes the message that waits in the queue and publishes it Tasks times, on one channel, with at most
// Batch unconfirmed.
func minimalPublish(_ context.Context, o lab.Order, say func(lab.Report)) error {
	return onAMQP(o, func(ch *amqp.Channel) error {
		m, err := template(ch)
		if err != nil {
			return err
		}
		if err := ch.Confirm(false); err != nil {
			return err
		}
		begun := time.Now()
		unconfirmed := make([]*amqp.DeferredConfirmation, o.Batch) // a ring
		await := func(c *amqp.DeferredConfirmation) error {
			if c != nil && !c.Wait() {
				return fmt.Errorf("message %d was not confirmed", c.DeliveryTag)
			}
			return nil
		}
		for i := range o.Tasks {
			if err := await(unconfirmed[i%o.Batch]); err != nil {
				return err
			}
			if unconfirmed[i%o.Batch], err = ch.PublishWithDeferredConfirm("", o.Queue, false, false, m); err != nil {
				return err
			}
		}
		for _, c := range unconfirmed {
			if err := await(c); err != nil {
				return err
			}
		}
		say(lab.Report{Seconds: time.Since(begun).Seconds()})
		return nil
	})
}

// template is a message as it came from the queue, to be sent again.
func template(ch *amqp.Channel) (amqp.Publishing, error) {
	d, ok, err := ch.Get(queue, true)
	if err == nil && !ok {
		err = errors.New("no message waits that could be the template")
	}
	return amqp.Publishing{Headers: d.Headers, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding,
		DeliveryMode: d.DeliveryMode, Priority: d.Priority, CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo,
		Expiration: d.Expiration, MessageId: d.MessageId, Timestamp: d.Timestamp, Type: d.Type, AppId: d.AppId, Body: d.Body}, err
}

// minimalConsume receives Tasks messages, decodes their bodies and acknowledges each.
func minimalConsume(_ context.Context, o lab.Order, say func(lab.Report)) error {
	begun := time.Now()
	return onAMQP(o, func(ch *amqp.Channel) error {
		if err := ch.Qos(prefetch*o.Concurrency, 0, false); err != nil {
			return err
		}
		const tag = "minimal"
		deliveries, err := ch.Consume(o.Queue, tag, false, false, false, false, nil)
		if err != nil {
			return err
		}
		for i := 0; i < o.Tasks; i++ {
			d, ok := <-deliveries
			if !ok {
				return errors.New("the broker ended the deliveries")
			}
			var body [3]any
			if err := json.Unmarshal(d.Body, &body); err != nil {
				return err
			}
			if err := d.Ack(false); err != nil {
				return err
			}
		}
		say(lab.Report{Seconds: time.Since(begun).Seconds()})
		// A quorum queue forgets acknowledgements that stand before the end of their channel, but not before a cancel.
		return ch.Cancel(tag, false)
	})
}

// onAMQP runs f on a channel of a connection.
func onAMQP(o lab.Order, f func(ch *amqp.Channel) error) (err error) {
	conn, err := amqp.Dial(o.Broker)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return f(ch)
}
