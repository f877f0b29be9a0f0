package transport

import (
	"context"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
)

// collectPatience is how many timeouts Collect lasts at most, however many replies come.
const collectPatience = 10

// Collect broadcasts a request of remote control and hands on what comes in reply, until nothing has come for the timeout or the
// function says that it is enough: kombu's Mailbox of a client. It gives the request its ticket and says where replies go. The
// messages are as they came, by a queue that anybody may write to. The error is that nothing was sent, or that ctx ended before.
func Collect(ctx context.Context, t Transport, r *protocol.PidboxRequest, s serialization.Serializer, timeout time.Duration, more func(*Delivery) bool) error {
	r.Ticket, r.Expires = protocol.NewID(), time.Now().Add(timeout)
	r.ReplyTo = protocol.PidboxReplyTo{Exchange: protocol.PidboxReplyExchange, RoutingKey: protocol.NewID()}
	m, err := r.Message(s)
	if err != nil {
		return err
	}
	replies, err := t.Subscribe(ctx, r.ReplyTo.Exchange, r.ReplyTo.RoutingKey)
	if err != nil {
		return err
	}
	defer func() { _ = replies.Close() }() // what came has come; a mailbox that could not be removed is one nobody writes to
	if err := t.Broadcast(ctx, protocol.PidboxExchange, "", m); err != nil {
		return err
	}
	whole, cancel := context.WithTimeout(ctx, collectPatience*timeout)
	defer cancel()
	for {
		waiting, enough := context.WithTimeout(whole, timeout)
		d, err := replies.Receive(waiting)
		enough()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && waiting.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if !more(&d) {
			return nil
		}
	}
}
