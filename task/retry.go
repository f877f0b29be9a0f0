package task

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/transport"
)

// defaultMaxRetries and defaultRetryDelay are Celery's max_retries and default_retry_delay.
const (
	defaultMaxRetries = 3
	defaultRetryDelay = 180 * time.Second
)

// RetryOption is an option of a [Retry]: all that a call takes but for its identity (its id, lineage and group), and
// [MaxRetries], [RetryArgs] and [RetryKwargs].
type RetryOption interface {
	fmt.Stringer
	applyRetry(*settings) error
}

// RetryDefault serves as a task's default and for one [Retry].
type RetryDefault interface {
	DefineOption
	RetryOption
}

type retryOption[T any] struct{ setting[T] }

func (o retryOption[T]) applyRetry(s *settings) error { return o.set(s, o.value) }

type retryDefault[T any] struct{ retryOption[T] }

func (o retryDefault[T]) applyDefine(s *settings) error { return o.set(s, o.value) }

// MaxRetries is how often the task may be retried: with 3, the default, it runs four times at most. Negative means without
// limit. Given to a [Retry] it counts for that one alone. It is for the worker that runs the task and is not sent. Celery:
// max_retries, where None is without limit.
func MaxRetries(n int) RetryDefault {
	return retryDefault[int]{retryOption[int]{setting[int]{"MaxRetries", n, func(s *settings, v int) error {
		s.MaxRetries = new(max(v, -1))
		return nil
	}}}}
}

// RetryDelay is how long a [Retry] without a [Countdown] or an [ETA] waits. Default 180 s. Celery: default_retry_delay.
func RetryDelay(d time.Duration) DefineOption {
	return forDefine("RetryDelay", d, func(s *settings, v time.Duration) error {
		if v < 0 {
			return errors.New("the duration is negative")
		}
		s.RetryDelay = &v
		return nil
	})
}

// RetryArgs replaces the positional arguments. Celery: retry(args=…).
func RetryArgs(args ...any) RetryOption {
	return retryOption[[]any]{setting[[]any]{"RetryArgs", append([]any{}, args...), func(s *settings, v []any) error {
		s.args = v
		return nil
	}}}
}

// RetryKwargs replaces the keyword arguments. Celery: retry(kwargs=…).
func RetryKwargs(kwargs map[string]any) RetryOption {
	return retryOption[map[string]any]{setting[map[string]any]{"RetryKwargs", kwargs, func(s *settings, v map[string]any) error {
		s.kwargs = map[string]any{}
		maps.Copy(s.kwargs, v)
		return nil
	}}}
}

// RetryError is what [Retry] returns.
type RetryError struct {
	Err error // why; may be nil

	options []RetryOption
}

func (e *RetryError) Error() string {
	if e.Err == nil {
		return "task asked to be retried"
	}
	return "task asked to be retried: " + e.Err.Error()
}

func (e *RetryError) Unwrap() error { return e.Err }

// Retry asks for another run of the task that returns it: Celery's self.retry.
//
//	return 0, task.Retry(err, task.Countdown(5*time.Second))
//
// The task's call is sent again, with the same id and all that the call says, one more retry counted, and an eta: of the
// options [Countdown] or [ETA], else the task's [RetryDelay] from now. Options change it as they would have shaped the
// call; without a [Queue] or an [Exchange] it goes where it came from. Its expiry stays the same moment.
//
// The state is RETRY with err meanwhile. When the task has had its [MaxRetries], it has failed, with err; without one with
// Celery's MaxRetriesExceededError. An option that cannot be applied is a failure too. The worker finds it with errors.As,
// so it may be wrapped.
func Retry(err error, opts ...RetryOption) error { return &RetryError{Err: err, options: opts} }

// Attempt is the next run of a call that is to be retried.
type Attempt struct {
	Publication transport.Publication
	Err         error  // for the state RETRY; nil: none was given
	Why         string // Celery's words for it: "Retry in 5s: ValueError('bad')"
}

// NextAttempt decides what the error of a run asks for: another attempt, by [Retry] or by the task's [RetryPolicy], or
// none. Nil with the error the run has failed with: err itself, that of the retry when there have been enough, or that of
// an option which cannot be applied. Info must have its Client. It calls methods of the user's errors.
func (d *Defaults) NextAttempt(info *Info, err error) (*Attempt, error) {
	s := &settings{again: true}
	asked, ok := errors.AsType[*RetryError](err)
	switch {
	case ok:
		if err := s.applyRetry(asked.options); err != nil {
			return nil, errors.Join(err, asked.Err)
		}
		err = asked.Err
	case d.RetryPolicy.wants(err):
		s.countdown, s.scheduled = d.RetryPolicy.delay(info.Retries, rand.Int64N)
		if n := d.RetryPolicy.MaxRetries; n != 0 {
			s.MaxRetries = &n
		}
	default:
		return nil, err
	}
	if !s.scheduled {
		s.countdown = *either(d.RetryDelay, new(defaultRetryDelay))
	}
	args, kwargs := info.Args, info.Kwargs
	if s.args != nil {
		args = s.args
	}
	if s.kwargs != nil {
		kwargs = s.kwargs
	}
	if most := *either(s.MaxRetries, either(d.MaxRetries, new(defaultMaxRetries))); most >= 0 && info.Retries >= most {
		if err == nil {
			text := fmt.Sprintf("Can't retry %s[%s] args:%s kwargs:%s", info.Task, info.ID,
				value.ReprTuple(args, reprSize), value.Repr(kwargs, reprSize))
			err = AsPython(errors.New(text), "celery.exceptions", "MaxRetriesExceededError")
		}
		return nil, err
	}
	publication, failed := info.Client.retry(info, s, time.Now())
	if failed != nil {
		return nil, errors.Join(fmt.Errorf("retry: %w", failed), err)
	}
	return &Attempt{Publication: publication, Err: err, Why: s.why(err)}, nil
}

// applyRetry applies the options of a retry.
func (s *settings) applyRetry(options []RetryOption) error {
	for _, o := range options {
		if err := o.applyRetry(s); err != nil {
			return fmt.Errorf("retry: option %v: %w", o, err)
		}
	}
	return s.checkTimeLimits()
}

// why is the text of Celery's Retry exception.
func (s *settings) why(err error) string {
	text := fmt.Sprintf("Retry in %vs", seconds(s.countdown))
	if s.countdown == 0 && !s.eta.IsZero() {
		text = "Retry at " + s.eta.UTC().Format("2006-01-02 15:04:05.999999-07:00")
	}
	if err != nil {
		text += ": " + ExceptionOf(err).String()
	}
	return text
}

// retry makes the message of the next attempt.
func (c *Client) retry(info *Info, s *settings, now time.Time) (transport.Publication, error) {
	next := *info.Request
	next.Retries++
	next.ParentID = either(next.ParentID, next.ID) // as in Celery, so that results of both say the same
	next.ETA = ""
	if s.countdown > 0 {
		s.eta = now.Add(s.countdown)
	}
	if !s.eta.IsZero() {
		if err := checkTime(s.eta); err != nil {
			return transport.Publication{}, fmt.Errorf("eta: %w", err)
		}
		next.ETA = protocol.FormatTime(s.eta)
	}
	secrets := c.secrets.Of(info.Secrets)
	if secrets.ShownIn(next.ArgsRepr, next.KwargsRepr, next.Args, next.Kwargs) { // a Python client's
		next.ArgsRepr, next.KwargsRepr = secrets.ReprTuple(next.Args, reprSize), secrets.Repr(next.Kwargs, reprSize)
	}
	s.override(&next, now, secrets)
	next.Extra = slices.DeleteFunc(slices.Clone(next.Extra), func(h protocol.Header) bool { return leftBehind(h.Name) })
	return c.republication(info, &next, s, now)
}

// override changes what the options of a retry say.
func (s *settings) override(r *protocol.Request, now time.Time, secrets value.Secrets) {
	if s.args != nil {
		r.Args, r.ArgsRepr = s.args, secrets.ReprTuple(s.args, reprSize)
	}
	if s.kwargs != nil {
		r.Kwargs, r.KwargsRepr = s.kwargs, secrets.Repr(s.kwargs, reprSize)
	}
	if s.Expires > 0 {
		s.expiresAt = now.Add(s.Expires)
	}
	expires, ok := r.ExpiresTime()
	if !s.expiresAt.IsZero() {
		expires, ok, r.Expires = s.expiresAt, true, protocol.FormatTime(s.expiresAt)
	}
	r.Properties.Expiration = ""
	if ok && (s.eta.IsZero() || expires.After(s.eta)) { // else it would end in the broker, and nobody be told
		r.Properties.Expiration = expiration(expires, now)
	}
	r.Shadow = either(s.shadow, r.Shadow)
	r.TimeLimit.Hard = either(s.TimeLimit.Seconds(), r.TimeLimit.Hard)
	r.TimeLimit.Soft = either(s.SoftTimeLimit.Seconds(), r.TimeLimit.Soft)
	r.IgnoreResult = either(s.IgnoreResult, r.IgnoreResult)
	r.Properties.ReplyTo = either(s.replyTo, r.Properties.ReplyTo)
	if s.Priority != nil {
		r.Properties.Priority = *s.Priority
	}
	if s.Transient {
		r.Properties.DeliveryMode = 1
	}
	if s.embed.Callbacks != nil {
		r.Embed.Callbacks = s.embed.Callbacks
	}
	if s.embed.Errbacks != nil {
		r.Embed.Errbacks = s.embed.Errbacks
	}
	for _, h := range s.headers {
		r.Extra = slices.DeleteFunc(slices.Clone(r.Extra), func(e protocol.Header) bool { return e.Name == h.Name })
		r.Extra = append(r.Extra, h)
	}
	if len(s.stamps) > 0 {
		stamps := maps.Clone(s.stamps)
		for name, v := range r.Stamps {
			if _, replaced := stamps[name]; !replaced {
				stamps[name] = v
			}
		}
		r.Stamps = stamps
		for _, name := range s.stampedHeaders {
			if !slices.Contains(r.StampedHeaders, name) {
				r.StampedHeaders = append(slices.Clip(r.StampedHeaders), name)
			}
		}
	}
}

// leftBehind names the headers that tell what became of one message on its way, which is not what became of the next.
func leftBehind(name string) bool {
	return name == protocol.AttemptsHeader || name == protocol.HopsHeader || name == protocol.RedeliveredHeader || name == protocol.OnceHeader ||
		name == "x-delivery-count" || name == "x-death" ||
		strings.HasPrefix(name, "x-first-death-") || strings.HasPrefix(name, "x-last-death-")
}

// republication makes a message of a request that came in one: the body as it was, if what it says is unchanged, and sent
// where it came from unless the settings say otherwise.
func (c *Client) republication(info *Info, r *protocol.Request, s *settings, now time.Time) (transport.Publication, error) {
	dest, err := c.wayBack(info, s)
	if err != nil {
		return transport.Publication{}, err
	}
	changed := s.args != nil || s.kwargs != nil || s.embed.Callbacks != nil || s.embed.Errbacks != nil ||
		s.Serializer != "" || s.Compression != ""
	m, same := r.Again()
	if changed || !same {
		if m, err = c.rewritten(r, s); err != nil {
			return transport.Publication{}, err
		}
	}
	return dest.publication(m, s.eta, now), nil
}

// rewritten writes a changed request as the one it came from was written. What can be read only, pickle or bzip2, becomes
// what this client writes.
func (c *Client) rewritten(r *protocol.Request, s *settings) (*protocol.Message, error) {
	e := r.Encoding()
	if checkSerializer(e.Serializer) != nil {
		e.Serializer = c.config.Serializer
	}
	e.Serializer = either(s.Serializer, e.Serializer)
	e.Compression = either(s.Compression, e.Compression)
	m, err := r.Message(e)
	if err != nil && s.Compression == "" && e.Compression != "" {
		e.Compression = c.config.Compression
		m, err = r.Message(e)
	}
	return m, err
}

// wayBack is where a call is sent again: to the same queue if it came by the queue's name, else to the same exchange with
// the same key.
func (c *Client) wayBack(info *Info, s *settings) (destination, error) {
	if s.Queue != "" || s.Exchange != "" {
		return c.router.resolve(s)
	}
	from := info.Properties.DeliveryInfo
	if from.Exchange == "" {
		from.RoutingKey = either(from.RoutingKey, info.Queue)
	} else if s.RoutingKey != "" {
		from.RoutingKey = s.RoutingKey
	}
	return c.router.at(from.Exchange, from.RoutingKey), nil
}

// Forward hands messages to the broker that were made to follow a task, and declares the queues they are for, as Send
// does. It returns when the broker has them. There is no limit to its time but ctx's: with one, a message may be in doubt
// that would have arrived. See [transport.Transport] for the errors.
func (c *Client) Forward(ctx context.Context, batch []transport.Publication) error {
	if c.transport == nil {
		return ErrNoBroker
	}
	out := make([]outgoing, len(batch))
	for i, p := range batch {
		out[i] = outgoing{publication: p, declare: c.router.at(p.Exchange, p.RoutingKey).declare, tolerant: true}
	}
	if err := c.deliverAgain(ctx, out); err != nil {
		return err
	}
	if c.config.SendSentEvent || len(c.onSent.load()) > 0 {
		sent := calls(out)
		if c.config.SendSentEvent {
			c.tellSent(ctx, sent)
		}
		c.countSent(sent)
	}
	return nil
}
