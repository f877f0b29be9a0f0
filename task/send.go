package task

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/transport"
)

// reprSize caps argsrepr and kwargsrepr, in bytes, as Celery caps them.
const reprSize = 1024

// outgoing is a call ready for the broker.
type outgoing struct {
	id          string
	ignored     bool // nothing will be stored
	untold      bool // a part of a workflow
	awaited     bool // a result that is sent comes to this client
	publication transport.Publication
	request     *protocol.Request // that the message was made of
	declare     []transport.Queue
	timeout     time.Duration // the call's own PublishTimeout; 0: none
	tolerant    bool          // a queue that cannot be declared may be there nevertheless
}

// prepare turns a call into its message.
func (c *Client) prepare(ctx context.Context, call *Call, now time.Time) (outgoing, error) {
	p, err := c.plan(ctx, call, now)
	if err != nil {
		return outgoing{}, err
	}
	return c.encode(&p)
}

// plan applies all that shapes a call. An option of the call wins over the task's own, that over a route's, that over the
// configuration: Celery's order.
func (c *Client) plan(ctx context.Context, call *Call, now time.Time) (Publishing, error) {
	if call.Name == "" {
		return Publishing{}, errors.New("the task has no name")
	}
	s := &settings{}
	for _, o := range call.Options {
		if err := o.applySend(s); err != nil {
			return Publishing{}, fmt.Errorf("option %v: %w", o, err)
		}
	}
	if call.defaults != nil {
		s.inherit(call.defaults)
	}
	dest, err := c.router.route(s, call.routeName(), call.Args, call.Kwargs)
	if err != nil {
		return Publishing{}, err
	}
	if !s.expiresAt.IsZero() {
		s.Expires = 0 // of the task or a route, the call's own is the other one
	}
	if err := s.checkTimeLimits(); err != nil {
		return Publishing{}, err
	}
	request := c.request(ctx, call, s, now)
	if call.once { // nobody waits for it
		request.Properties.ReplyTo = s.replyTo
	}
	return Publishing{Request: request, Exchange: dest.exchange, RoutingKey: dest.key, settings: s, dest: dest,
		now: now, untold: call.untold, once: call.once}, nil
}

// routeName is the name that routes know a call by: celery.map and celery.starmap go where the task goes that they call.
func (call *Call) routeName() string {
	if call.Name == "celery.map" || call.Name == "celery.starmap" {
		if sig, err := protocol.SignatureFromValue(call.Kwargs["task"]); err == nil {
			return sig.Task
		}
	}
	if call.Name == unlockTask && len(call.Args) > 1 { // with its body
		if sig, err := protocol.SignatureFromValue(call.Args[1]); err == nil {
			return sig.Task
		}
	}
	return call.Name
}

// encode writes the message of a call.
func (c *Client) encode(p *Publishing) (outgoing, error) {
	request, s, dest, now := p.Request, p.settings, p.dest, p.now
	dest.exchange, dest.key = p.Exchange, p.RoutingKey
	m, err := request.Message(protocol.Encoding{
		Serializer:  either(s.Serializer, c.config.Serializer),
		Compression: either(s.Compression, c.config.Compression),
		Protocol:    c.config.Protocol,
	})
	if err != nil {
		return outgoing{}, err
	}
	ignored := request.IgnoreResult != nil && *request.IgnoreResult
	publication := dest.publication(m, s.eta, now)
	publication.Once = p.once
	return outgoing{
		id:          request.ID,
		ignored:     ignored,
		untold:      p.untold,
		awaited:     !ignored && !p.once && s.replyTo == "",
		publication: publication,
		request:     request,
		declare:     dest.declare,
		timeout:     s.publishTimeout,
	}, nil
}

// publication is a message on its way to the destination, to be run at eta.
func (d destination) publication(m *protocol.Message, eta, now time.Time) transport.Publication {
	m.Properties.DeliveryInfo = protocol.DeliveryInfo{Exchange: d.exchange, RoutingKey: d.key}
	p := transport.Publication{Message: m, Exchange: d.exchange, RoutingKey: d.key, Optional: d.optional}
	if d.delayed {
		p.Delay = delay(eta, now)
	}
	return p
}

// delay is how long the broker should keep a message: nothing below the second it counts in. The eta stays in the message,
// so that a worker which gets it early waits for the rest.
func delay(eta, now time.Time) time.Duration {
	d := eta.Sub(now)
	if eta.IsZero() || d < time.Second {
		return 0
	}
	return min(d, transport.MaxDelay)
}

// request fills in what the message says about the call.
func (c *Client) request(ctx context.Context, call *Call, s *settings, now time.Time) *protocol.Request {
	r := &protocol.Request{Args: call.Args, Kwargs: call.Kwargs, Embed: s.embed}
	r.Lang = "go"
	r.Task = call.Name
	r.ID = s.id
	if r.ID == "" {
		r.ID = protocol.NewID()
	}
	r.Shadow = s.shadow
	r.Group, r.GroupIndex = s.group, s.groupIndex
	r.Retries = s.retries
	r.ReplacedTaskNesting = s.nesting
	r.TimeLimit = protocol.TimeLimit{Hard: s.TimeLimit.Seconds(), Soft: s.SoftTimeLimit.Seconds()}
	secrets := c.secrets.Of(s.Secrets)
	r.ArgsRepr = secrets.ReprTuple(call.Args, reprSize)
	r.KwargsRepr = kwargsRepr(&secrets, call.Kwargs)
	r.Origin = c.config.Origin
	r.IgnoreResult = s.IgnoreResult
	if r.IgnoreResult == nil && c.config.IgnoreResult {
		r.IgnoreResult = &c.config.IgnoreResult
	}
	r.StampedHeaders, r.Stamps = s.stampedHeaders, s.stamps
	r.Extra = s.headers

	if s.countdown > 0 {
		s.eta = now.Add(s.countdown)
	}
	if !s.eta.IsZero() {
		r.ETA = protocol.FormatTime(s.eta)
	}
	if s.Expires > 0 {
		s.expiresAt = now.Add(s.Expires)
	}
	if !s.expiresAt.IsZero() {
		r.Expires = protocol.FormatTime(s.expiresAt)
		r.Properties.Expiration = expiration(s.expiresAt, now)
	}
	r.Properties.CorrelationID = r.ID
	r.Properties.ReplyTo = either(s.replyTo, c.replyTo)
	r.Properties.DeliveryMode = 2
	if s.Transient {
		r.Properties.DeliveryMode = 1
	}
	if s.Priority != nil {
		r.Properties.Priority = *s.Priority
	} else if info, ok := FromContext(ctx); ok && c.config.InheritParentPriority {
		r.Properties.Priority = info.Properties.Priority
	}
	setLineage(ctx, r, s)
	return r
}

func kwargsRepr(secrets *value.Secrets, kwargs map[string]any) string {
	if len(kwargs) == 0 {
		return "{}"
	}
	return secrets.Repr(kwargs, reprSize)
}

// expiration is the time to live of a message: RabbitMQ drops an expired one by this. In the past it is 0, which Python
// writes too.
func expiration(expires, now time.Time) string {
	return strconv.FormatInt(max(0, expires.Sub(now).Milliseconds()), 10)
}

// setLineage says which task sent this one and where the workflow began: Celery's root_id and parent_id.
func setLineage(ctx context.Context, r *protocol.Request, s *settings) {
	r.RootID, r.ParentID = s.rootID, s.parentID
	if info, ok := FromContext(ctx); ok {
		r.RootID = either(r.RootID, either(info.RootID, info.ID))
		r.ParentID = either(r.ParentID, info.ID)
	}
	r.RootID = either(r.RootID, r.ID)
}
