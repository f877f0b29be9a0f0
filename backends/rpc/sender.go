package rpc

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// Store sends each result to the queue its ReplyTo names, all in one Publish, and none where it names none. A queue
// that is not there is no error: nobody waits. It returns when the broker has them.
//
// A client must not be able to stop a worker by its reply_to. So a result that the broker refuses for its own or its
// queue's sake is logged and dropped, and the others are sent; an error means that nothing can be sent now. For a queue
// that takes nothing it waits a few seconds, and during the half minute after that only an instant.
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

const (
	// refusedFor is how long a queue that has refused a reply is on the list of those that do, and hasty how long replies
	// wait for it then. Else each of them would wait as long as the broker lets it.
	refusedFor = 30 * time.Second
	hasty      = 100 * time.Millisecond
	// mostRefusing bounds the list.
	mostRefusing = 1000
)

// send publishes the replies together if that goes well. If not, each queue gets its own, and is waited for alone.
func (b *Backend) send(ctx context.Context, replies []transport.Publication) error {
	if !slices.ContainsFunc(replies, func(r transport.Publication) bool { return b.refuses(r.RoutingKey) }) {
		if err := b.broker.Publish(ctx, replies); err == nil || hopeless(ctx, err) {
			return err
		}
	}
	byQueue := map[string][]transport.Publication{}
	for _, r := range replies {
		byQueue[r.RoutingKey] = append(byQueue[r.RoutingKey], r)
	}
	failed := make(chan error, len(byQueue))
	for queue, part := range byQueue {
		go func() { failed <- b.sendTo(ctx, queue, part) }()
	}
	var err error
	for range byQueue {
		err = errors.Join(err, <-failed)
	}
	return err
}

// sendTo publishes the replies for one queue, one by one when the broker did not take them together: to send one twice
// is harmless.
func (b *Backend) sendTo(ctx context.Context, queue string, replies []transport.Publication) error {
	soon, cancel := ctx, context.CancelFunc(func() {})
	if b.refuses(queue) {
		soon, cancel = context.WithTimeout(ctx, hasty)
	}
	err := b.broker.Publish(soon, replies)
	late := soon.Err() != nil
	cancel()
	switch {
	case err == nil:
		b.refused(queue, false)
		return nil
	case hopeless(ctx, err):
		return err
	case late, errors.Is(err, transport.ErrRefused): // the queue's answer to all of them: those that it took it has
		b.refused(queue, true)
	case len(replies) > 1:
		for i := range replies {
			if err := b.sendTo(ctx, queue, replies[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	}
	b.log.Error("result was not sent: the broker refuses it", "queue", queue, "results", len(replies),
		"task_id", replies[0].Message.Properties.CorrelationID, "error", err)
	return nil
}

// hopeless tells that nothing can be sent now, to whatever queue.
func hopeless(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, transport.ErrBrokerFull) || errors.Is(err, transport.ErrClosed)
}

// refuses tells that a queue has refused a reply lately.
func (b *Backend) refuses(queue string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Since(b.refusing[queue]) < refusedFor
}

// refused notes whether a queue refuses replies.
func (b *Backend) refused(queue string, yes bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !yes {
		delete(b.refusing, queue)
		return
	}
	if len(b.refusing) >= mostRefusing {
		clear(b.refusing)
	}
	b.refusing[queue] = time.Now()
}
