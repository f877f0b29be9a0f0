package monitor

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

const (
	// DefaultTimeout is how long replies are waited for: Celery's default of inspect and control.
	DefaultTimeout = time.Second
	// maxClock bounds the logical clock, so that no number from outside makes it turn over.
	maxClock = 1 << 52
)

// ControlConfig configures a Control. The zero value is Celery's default.
type ControlConfig struct {
	// Serializer of requests: "json" by default. task_serializer.
	Serializer string
	// Accept are the serializers that replies may have, by name: "json" by default. accept_content.
	Accept []string
	// Timeout is how long the next reply is waited for, a second by default. See Within for not at all.
	Timeout time.Duration
}

// Control sends commands to workers and collects what they answer: Celery's app.control and app.control.inspect. It may be
// used concurrently. It addresses all workers; To, Matching, Limit and Within make one that addresses others, or waits longer.
type Control struct {
	mailbox *mailbox
	target  target
}

// target is who is meant, and how long and for how many replies to wait.
type target struct {
	destination      []string
	pattern, matcher string
	wrong            error // why the pattern must not be sent
	limit            int
	timeout          time.Duration
}

// mailbox is what all Controls made of one share: kombu's Mailbox of a client.
type mailbox struct {
	transport  transport.Transport
	serializer serialization.Serializer
	accept     serialization.Accept
	clock      atomic.Int64
}

// NewControl makes a Control that speaks over a transport, which stays the caller's.
func NewControl(tr transport.Transport, c ControlConfig) (*Control, error) {
	if c.Serializer == "" {
		c.Serializer = "json"
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	s, known := serialization.Lookup(c.Serializer)
	if !known {
		return nil, fmt.Errorf("monitor: serializer %q is unknown", c.Serializer)
	}
	if c.Timeout < 0 {
		return nil, fmt.Errorf("monitor: timeout %v is negative", c.Timeout)
	}
	accept, err := acceptOf(c.Accept)
	if err != nil {
		return nil, err
	}
	m := &mailbox{transport: tr, serializer: s, accept: accept}
	return &Control{mailbox: m, target: target{timeout: c.Timeout}}, nil
}

func acceptOf(names []string) (serialization.Accept, error) {
	if len(names) == 0 {
		names = []string{"json"}
	}
	a, err := serialization.NewAccept(names...)
	if err != nil {
		return a, fmt.Errorf("monitor: %w", err)
	}
	return a, nil
}

// To addresses the workers with these node names, "celery@web1", and waits for no more than their replies. None: all.
func (c Control) To(nodes ...string) *Control {
	c.target.destination = nodes
	return &c
}

// Matching addresses the workers whose node name matches: the matcher is "glob" (shell wildcards) or "pcre" (a regular
// expression, from the beginning of the name). Python workers know it since Celery 5.0. A call fails, and sends nothing, with a
// pattern that CheckPattern refuses. Matching("", "") addresses all.
func (c Control) Matching(pattern, matcher string) *Control {
	c.target.pattern, c.target.matcher, c.target.wrong = pattern, matcher, nil
	if pattern != "" || matcher != "" {
		c.target.wrong = CheckPattern(pattern, matcher)
	}
	return &c
}

// Limit ends a call after so many replies. 0: no limit, but the number of nodes it was sent To.
func (c Control) Limit(replies int) *Control {
	c.target.limit = replies
	return &c
}

// Within sets how long to wait for the next reply. A call lasts ten times that at most, and the command expires after it. With 0, as in
// Celery, the command is sent, does not expire, and nobody waits: the call returns no replies. A negative time makes each call fail.
func (c Control) Within(timeout time.Duration) *Control {
	c.target.timeout = timeout
	return &c
}

// Tell broadcasts a command and waits for no reply: Celery's broadcast. It returns when the broker has it.
func (c *Control) Tell(ctx context.Context, method string, arguments map[string]any) error {
	if err := c.send(ctx, &protocol.PidboxRequest{Method: method, Arguments: arguments}); err != nil {
		return fmt.Errorf("control %s: %w", method, err)
	}
	return nil
}

// Ask broadcasts a command and yields the replies as they come, until none has come for the timeout, there are as many as the
// limit, or the loop ends. An error is the last that is yielded: the command may not have been sent then. What is no reply
// is left out.
func (c *Control) Ask(ctx context.Context, method string, arguments map[string]any) iter.Seq2[Reply, error] {
	return func(yield func(Reply, error) bool) {
		if err := c.ask(ctx, method, arguments, yield); err != nil {
			yield(Reply{}, fmt.Errorf("control %s: %w", method, err))
		}
	}
}

// ask returns an error that is still to be told.
func (c *Control) ask(ctx context.Context, method string, arguments map[string]any, yield func(Reply, error) bool) error {
	timeout, limit := c.target.timeout, c.target.limit
	switch {
	case timeout < 0:
		return fmt.Errorf("timeout %v is negative", timeout)
	case timeout == 0:
		return c.send(ctx, &protocol.PidboxRequest{Method: method, Arguments: arguments})
	}
	if limit == 0 {
		limit = len(c.target.destination)
	}
	request := &protocol.PidboxRequest{Method: method, Arguments: arguments}
	if err := c.address(request); err != nil {
		return err
	}
	n := 0
	return transport.Collect(ctx, c.mailbox.transport, request, c.mailbox.serializer, timeout, func(d *transport.Delivery) bool {
		r, ok := c.mailbox.read(d, request.Ticket)
		if !ok {
			return true
		}
		n++
		return yield(r, nil) && (limit == 0 || n < limit)
	})
}

// send broadcasts a request to the target.
func (c *Control) send(ctx context.Context, r *protocol.PidboxRequest) error {
	if err := c.address(r); err != nil {
		return err
	}
	m, err := r.Message(c.mailbox.serializer)
	if err != nil {
		return err
	}
	return c.mailbox.transport.Broadcast(ctx, protocol.PidboxExchange, "", m)
}

// address makes a request one to the target.
func (c *Control) address(r *protocol.PidboxRequest) error {
	r.Destination, r.Pattern, r.Matcher = c.target.destination, c.target.pattern, c.target.matcher
	r.Clock = int(c.mailbox.clock.Add(1))
	return c.target.wrong
}
