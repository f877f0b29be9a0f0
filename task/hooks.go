package task

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
)

// Publishing is a call on its way to the broker, as a [PublishMiddleware] finds it: options, defaults and routes are
// applied, the message is not encoded yet. What a middleware changes is what is sent.
type Publishing struct {
	// Request is the call: its name in Task, Args and Kwargs, priority and the like in Properties, custom headers in Extra
	// (see SetHeader). The arguments are the caller's: replace them rather than change them in place. ArgsRepr and KwargsRepr
	// follow them unless they are changed themselves, to hide a secret for example.
	Request *protocol.Request
	// Exchange and RoutingKey are where it goes. Nothing is declared for a destination that a middleware chooses.
	Exchange, RoutingKey string

	settings *settings
	dest     destination
	now      time.Time
	untold   bool
	once     bool
	args     [2]string // ArgsRepr and KwargsRepr as they were before the middleware
	message  *outgoing // once it is encoded
}

// SetHeader sets a custom header; v is any value JSON can carry. See [Header].
func (p *Publishing) SetHeader(name string, v any) error {
	s := &settings{}
	if err := Header(name, v).applySend(s); err != nil {
		return err
	}
	p.Request.Extra = slices.DeleteFunc(slices.Clone(p.Request.Extra), func(h protocol.Header) bool { return h.Name == name })
	p.Request.Extra = append(p.Request.Extra, s.headers...)
	return nil
}

// Publish hands calls to the broker together and returns when it has them. After an error none was sent, unless it is in
// doubt; see [Client.Send].
type Publish func(ctx context.Context, calls []*Publishing) error

// PublishMiddleware wraps the sending of calls by a client: what Celery's signals before_task_publish and
// after_task_publish are for. There is one call for a Send, and all of a SendBatch at once. What it does before next
// changes the messages; what next returns is the outcome. An error in place of next refuses the calls.
//
// Attempts of [Retry] and what else a worker sends for a task do not pass: they carry the headers of the first message.
type PublishMiddleware func(next Publish) Publish

// publisher wraps the client's own publishing in the middleware, the first one outermost. Nil: there is none.
func (c *Client) publisher() Publish {
	if len(c.config.Middleware) == 0 {
		return nil
	}
	publish := Publish(func(ctx context.Context, calls []*Publishing) error {
		batch := make([]outgoing, len(calls))
		for i, p := range calls {
			if p == nil || p.settings == nil || p.Request == nil || p.Request.Task == "" || p.Request.ID == "" {
				return errForeign
			}
			p.refreshReprs(c.secrets.Of(p.settings.Secrets))
			m, err := c.encode(p)
			if err != nil {
				return err
			}
			batch[i] = m
		}
		if err := c.publish(ctx, batch); err != nil {
			return err
		}
		for i, p := range calls {
			p.message = &batch[i]
		}
		return nil
	})
	for _, middleware := range slices.Backward(c.config.Middleware) {
		publish = middleware(publish)
	}
	return publish
}

// refreshReprs makes argsrepr and kwargsrepr tell of the arguments that are sent.
func (p *Publishing) refreshReprs(secrets value.Secrets) {
	if p.Request.ArgsRepr == p.args[0] {
		p.Request.ArgsRepr = secrets.ReprTuple(p.Request.Args, reprSize)
	}
	if p.Request.KwargsRepr == p.args[1] {
		p.Request.KwargsRepr = kwargsRepr(&secrets, p.Request.Kwargs)
	}
}

// errForeign refuses what no client has made.
var errForeign = errors.New("a publish middleware handed on a call without a name or an id, or one of its own making")

// errKept is the error of calls that a middleware did not hand on.
var errKept = errors.New("a publish middleware did not hand it on")

// sendThrough sends calls through the middleware.
func (c *Client) sendThrough(ctx context.Context, calls []Call) ([]handle, error) {
	now := time.Now()
	all := make([]*Publishing, len(calls))
	for i := range calls {
		p, err := c.plan(ctx, &calls[i], now)
		if err != nil {
			return nil, fmt.Errorf("call %d, task %s: %w", i, calls[i].Name, err)
		}
		p.args = [2]string{p.Request.ArgsRepr, p.Request.KwargsRepr}
		all[i] = &p
	}
	if err := c.through(ctx, slices.Clone(all)); err != nil {
		return nil, err
	}
	handles := make([]handle, len(all))
	for i, p := range all {
		if p.message == nil {
			return nil, fmt.Errorf("call %d, task %s: %w", i, calls[i].Name, errKept)
		}
		handles[i] = handle{id: p.message.id, client: c, ignored: p.message.ignored}
	}
	return handles, nil
}
