package rabbitmq

import (
	"context"
	"fmt"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// beginPatience is how long the broker may take for the message that Begin sends.
const beginPatience = 10 * time.Second

// countRoom is what the header that Begin or Delay adds takes in a table, at most.
const countRoom = 64

// Begin implements transport.Consumer. A message cannot be changed in AMQP, so it is sent anew to the back of its own
// queue by the default exchange, as it was but for the count, and acknowledged when the broker has confirmed the copy:
// again is true. Headers and properties are the same bytes; the broker's own headers (x-death, x-delivery-count) and
// user_id are left out, and an expiration starts again.
//
// Nothing is lost at any moment. Twice comes a message whose channel or worker ends between the confirmation and the
// acknowledgement, and one whose confirmation did not come in time: that is an error, though the copy may be there. A
// queue that takes no more (x-overflow=reject-publish) is ErrRefused, and an alarm ErrBrokerFull. One whose channel was
// lost before is ErrTakenBack: it comes by itself, with the old count.
func (c *consumer) Begin(ctx context.Context, d *transport.Delivery) (again bool, err error) {
	if blocked, _ := c.t.publishes.flow(); blocked {
		return false, transport.ErrBrokerFull
	}
	h := c.leave(d)
	if h == nil {
		return false, transport.ErrTakenBack
	}
	s := settling{transport.Settlement{Delivery: d}, h}
	if raw, _ := rawTable(h.Headers); len(raw)+countRoom > maxTable {
		c.keep([]settling{s})
		return false, fmt.Errorf("begin: headers take %d bytes and leave no room for %s", len(raw), protocol.AttemptsHeader)
	}
	ctx, cancel := context.WithTimeout(ctx, beginPatience)
	defer cancel()
	m := republishing(&h.Delivery, tableEntry{protocol.AttemptsHeader, int64(d.Message.Headers.Attempts() + 1)},
		tableEntry{protocol.RedeliveredHeader, nil})
	if err := c.sendAnew(ctx, []settling{s}, []*outbound{{key: h.intake.queue, impatient: true, message: m}}); err != nil {
		return false, fmt.Errorf("begin: %w", err)
	}
	return true, nil
}
