package rpc

import (
	"context"
	"errors"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// Store sends each result to the queue its ReplyTo names, all in one Publish, and none where it names none. A queue
// that is not there is no error: nobody waits. It returns when the broker has them.
//
// A client must not be able to stop a worker by its reply_to. So a result that the broker refuses for its own or its
// queue's sake is logged and dropped, and the others are sent; an error means that nothing can be sent now.
func (b *Backend) Store(ctx context.Context, batch []*protocol.ResultMeta) error {
	if _, err := b.started(); err != nil {
		return err
	}
	replies := make([]transport.Publication, 0, len(batch))
	for _, m := range batch {
		if m.ReplyTo == "" {
			continue
		}
		reply, err := protocol.NewReply(m, b.serializer, b.persistent)
		if err != nil {
			return &backends.EncodeError{TaskID: m.TaskID, Err: err}
		}
		replies = append(replies, transport.Publication{Message: reply, RoutingKey: m.ReplyTo, Optional: true})
	}
	if len(replies) == 0 {
		return nil
	}
	return b.send(ctx, replies)
}

// send publishes the replies, and one by one when the broker did not take them together: to send one twice is harmless.
func (b *Backend) send(ctx context.Context, replies []transport.Publication) error {
	err := b.broker.Publish(ctx, replies)
	if err == nil || ctx.Err() != nil || errors.Is(err, transport.ErrBrokerFull) || errors.Is(err, transport.ErrClosed) {
		return err
	}
	if len(replies) == 1 {
		b.log.Error("result was not sent: the broker refuses it", "queue", replies[0].RoutingKey,
			"task_id", replies[0].Message.Properties.CorrelationID, "error", err)
		return nil
	}
	for i := range replies {
		if err := b.send(ctx, replies[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}
