package monitor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/transport"
)

// maxReplies bounds what the calls that return all replies collect.
const maxReplies = 100_000

// Reply is what one worker answers.
type Reply struct {
	Node  string // the worker's node name
	Value any    // a canonical value, see package value: {"ok": …}, {"error": …} or bare data
}

// Err is the error that a worker answers with, {"error": …}, as a *RemoteError; nil for any other reply.
func (r Reply) Err() error {
	m, _ := r.Value.(map[string]any)
	text, failed := m["error"]
	if !failed || len(m) != 1 {
		return nil
	}
	if s, isText := text.(string); isText {
		return &RemoteError{r.Node, s}
	}
	return &RemoteError{r.Node, value.Repr(text, 1000)}
}

// RemoteError is what a worker could not do, in its own words: "unknown task", "KeyError('nosuchcommand')".
type RemoteError struct{ Node, Text string }

func (e *RemoteError) Error() string { return e.Node + ": " + e.Text }

// Answer is a worker's reply as a Go value. With Err, a *RemoteError or that of a reply which has another shape, Value is
// zero.
type Answer[T any] struct {
	Node  string
	Value T
	Err   error
}

// read reads a message as a reply to the ticket. What is none is left out: it came by a queue that anybody may write to.
func (b *mailbox) read(d *transport.Delivery, ticket string) (Reply, bool) {
	if d.Err != nil || d.Message == nil {
		return Reply{}, false
	}
	p, err := protocol.DecodePidboxReply(d.Message, b.accept)
	if err != nil || p.Ticket != "" && p.Ticket != ticket {
		return Reply{}, false
	}
	b.hear(int64(p.Clock))
	return Reply{p.Node, p.Value}, true
}

// hear moves the clock past that of a message.
func (b *mailbox) hear(at int64) { adjust(&b.clock, at) }

// As reads a reply as a T, by the rules of value.Assign. Celery's {"ok": …} is taken off where T is no mapping or struct.
func As[T any](r Reply) Answer[T] {
	a := Answer[T]{Node: r.Node, Err: r.Err()}
	if a.Err != nil {
		return a
	}
	v := r.Value
	if m, isMap := v.(map[string]any); isMap && len(m) == 1 {
		if inner, wrapped := m["ok"]; wrapped {
			v = inner
		}
	}
	if err := value.Assign(&a.Value, v); err != nil {
		var zero T
		a.Value, a.Err = zero, fmt.Errorf("%s: the reply is not as expected: %w", r.Node, err)
	}
	return a
}

// Collect asks and returns all replies as values of T, by node name. The error is that nothing was sent, or that ctx ended
// before the timeout; what came until then is returned with it.
func Collect[T any](ctx context.Context, c *Control, method string, arguments map[string]any) ([]Answer[T], error) {
	var all []Answer[T]
	var failed error
	for r, err := range c.Ask(ctx, method, arguments) {
		if err != nil {
			failed = err
			break
		}
		if all = append(all, As[T](r)); len(all) >= maxReplies {
			break
		}
	}
	slices.SortStableFunc(all, func(a, b Answer[T]) int { return cmp.Or(strings.Compare(a.Node, b.Node)) })
	return all, failed
}
