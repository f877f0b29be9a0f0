package rpc

import (
	"errors"
	"fmt"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// receiveMost is how many replies are taken together.
const receiveMost = 1000

// listen is the goroutine that hears of results: it takes replies and acknowledges them, until the backend or the
// transport is closed.
func (b *Backend) listen(consumer transport.Consumer) {
	for {
		deliveries, err := consumer.Receive(b.ctx, receiveMost)
		if err != nil {
			if b.ctx.Err() == nil {
				b.log.Error("results can no longer be received", "queue", b.queue.Name, "error", err)
				b.results.close(fmt.Errorf("receive results: %w", err))
			}
			return
		}
		settlements := make([]transport.Settlement, len(deliveries))
		replies := make([]reply, 0, len(deliveries))
		for i := range deliveries {
			settlements[i] = transport.Settlement{Delivery: &deliveries[i], Verdict: transport.Ack}
			if r, err := b.read(&deliveries[i]); err != nil {
				b.log.Warn("message in the reply queue is no result, dropped", "queue", b.queue.Name, "task_id", r.id, "error", err)
			} else {
				replies = append(replies, r)
			}
		}
		b.results.arrive(replies)
		if _, err := consumer.Settle(b.ctx, settlements); err != nil && b.ctx.Err() == nil {
			b.log.Warn("replies were not acknowledged and may come again", "queue", b.queue.Name, "error", err)
		}
	}
}

// read finds out which task a message is about. What it says of it is read by who waits, who learns so of a reply that
// cannot be read.
func (b *Backend) read(d *transport.Delivery) (reply, error) {
	m := d.Message
	if m == nil {
		return reply{}, d.Err
	}
	r := reply{id: m.Properties.CorrelationID, text: pack(m)}
	if r.id != "" {
		if d.Err != nil { // whatever its defect, whoever waits has to hear of it
			b.log.Warn("reply is damaged", "queue", b.queue.Name, "task_id", r.id, "error", d.Err)
		}
		return r, nil
	}
	meta, err := protocol.DecodeReply(m, b.results.decoder.accept)
	switch {
	case d.Err != nil:
		return r, d.Err
	case err != nil:
		return r, err
	case meta.TaskID == "":
		return r, errors.New("neither a correlation id nor a task_id")
	}
	r.id = meta.TaskID
	return r, nil
}
