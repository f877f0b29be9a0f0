package monitor

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/gelery/gelery/internal/retry"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

// ReceiverConfig configures a Receiver. The zero value is Celery's default.
type ReceiverConfig struct {
	// Exchange of the events: "celeryev" by default. event_exchange.
	Exchange string
	// RoutingKey is the binding key of what is received: "#", all events, by default; "worker.#" those of workers; "task.#"
	// those of tasks.
	RoutingKey string
	// Accept are the serializers that events may have, by name: "json" by default. event_serializer.
	Accept []string
	// DisableWakeup: the workers are not asked for a heartbeat each, by which they show up at once.
	DisableWakeup bool
	// Logger hears what goes wrong. nil: nobody.
	Logger *slog.Logger
}

// Receiver hears events: Celery's EventReceiver. It is used by one goroutine; the counters by any.
type Receiver struct {
	transport transport.Transport
	config    ReceiverConfig
	accept    serialization.Accept
	log       *slog.Logger
	clock     atomic.Int64
	received  atomic.Int64
	malformed atomic.Int64
}

// NewReceiver makes a Receiver that hears over a transport, which stays the caller's.
func NewReceiver(tr transport.Transport, c ReceiverConfig) (*Receiver, error) {
	if c.Exchange == "" {
		c.Exchange = protocol.EventExchange
	}
	if c.RoutingKey == "" {
		c.RoutingKey = "#"
	}
	accept, err := acceptOf(c.Accept)
	if err != nil {
		return nil, err
	}
	r := &Receiver{transport: tr, config: c, accept: accept, log: c.Logger}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	return r, nil
}

// Received is how many events have been handed on.
func (r *Receiver) Received() int64 { return r.received.Load() }

// Malformed is how many messages held what is no event.
func (r *Receiver) Malformed() int64 { return r.malformed.Load() }

// Capture hands events on, those of one message together and in their order, until ctx is done; it returns its cause. A lost
// connection is resumed; what is sent meanwhile is not heard. It holds some thousand messages while the handler is busy; beyond
// them RabbitMQ drops what is five seconds old, and Redis begins anew with an empty backlog. The workers notice nothing of it.
//
// The clock of task-sent is the receiver's own, since clients have none that is in step with the workers'. Timestamps are left
// as they are, seconds since 1970; Celery shifts them by the difference of the time zones, so that a worker elsewhere is hours off.
func (r *Receiver) Capture(ctx context.Context, handle func([]protocol.Event)) error {
	var backoff retry.Backoff
	for ctx.Err() == nil {
		heard, err := r.transport.Subscribe(ctx, r.config.Exchange, r.config.RoutingKey)
		if err == nil {
			r.wakeup(ctx)
			backoff = retry.Backoff{}
			err = r.listen(ctx, heard, handle)
			_ = heard.Close()
		}
		if ctx.Err() == nil {
			r.log.Warn("events are not heard, trying again", "exchange", r.config.Exchange, "error", err)
			_ = backoff.Wait(ctx)
		}
	}
	return context.Cause(ctx)
}

// wakeup asks all workers for a heartbeat. They show up without it, too, when theirs is due.
func (r *Receiver) wakeup(ctx context.Context) {
	if r.config.DisableWakeup {
		return
	}
	control, err := NewControl(r.transport, ControlConfig{})
	if err == nil {
		err = control.Heartbeat(ctx)
	}
	if err != nil && ctx.Err() == nil {
		r.log.Warn("workers were not asked for a heartbeat", "error", err)
	}
}

func (r *Receiver) listen(ctx context.Context, heard transport.Subscription, handle func([]protocol.Event)) error {
	for {
		d, err := heard.Receive(ctx)
		if err != nil {
			return err
		}
		if events := r.read(&d); len(events) > 0 {
			handle(events)
		}
	}
}

// read reads a message. What is no event is counted and left out.
func (r *Receiver) read(d *transport.Delivery) []protocol.Event {
	err := d.Err
	var events []protocol.Event
	if err == nil {
		events, err = protocol.DecodeEvents(d.Message, r.accept)
	}
	if err != nil {
		r.malformed.Add(1)
		r.log.Debug("a message is no event", "error", err)
	}
	for i := range events {
		r.adjust(&events[i])
	}
	r.received.Add(int64(len(events)))
	return events
}

// adjust gives an event a clock, if it has none of use, and moves our own past it.
func (r *Receiver) adjust(e *protocol.Event) {
	switch {
	case e.Type == protocol.TaskSent:
		e.Clock = max(r.clock.Load(), 1) - 1
	case e.Clock <= 0:
		e.Clock = r.clock.Add(1)
		return
	}
	adjust(&r.clock, e.Clock)
}
