package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
)

// SendOption is an option of one call: what Celery's apply_async takes. It serves for a [Retry] too.
type SendOption interface {
	RetryOption
	applySend(*settings) error
}

// DefineOption is an option of a task: what Celery's @app.task takes.
type DefineOption interface {
	fmt.Stringer
	applyDefine(*settings) error
}

// Option serves both ways, as a task's default and for one call; a [Route] hands them out too.
type Option interface {
	SendOption
	DefineOption
}

// Defaults are the options of a task: what its calls use unless they say otherwise, and what its worker heeds. Zero
// means unset; the client's or the worker's configuration decides then.
type Defaults struct {
	Queue         string
	Exchange      string
	RoutingKey    string
	Priority      *int
	Serializer    string
	Compression   string
	Transient     bool          // delivery_mode 1: the message does not survive a broker restart
	Expires       time.Duration // after sending
	TimeLimit     time.Duration // hard, of one run
	SoftTimeLimit time.Duration // of one run
	IgnoreResult  *bool

	MaxRetries   *int           // nil: 3; negative: no limit
	RetryDelay   *time.Duration // nil: 180 s
	RetryPolicy  *RetryPolicy   // nil: only an explicit [Retry] tries again
	TrackStarted *bool          // store STARTED; nil: as the worker is configured
	Throws       []error        // expected errors: FAILURE, logged at INFO

	AckEarly      *bool // acknowledge before running: at most once, Celery's acks_late=False; nil: as the worker is configured
	AckOnFailure  *bool // false: a failed run's message is rejected; nil: as the worker is configured
	AckOnTimeout  *bool // the same for a time limit
	MaxDeliveries int   // how often a message may begin that was handed out before; 0: as the worker is configured

	Lenient bool // unknown keyword arguments are dropped instead of refused

	Handlers    Handlers // for the worker: what the task does beside its work
	RateLimit   *string  // how often runs begin in a worker, as ParseRate reads it; nil: the worker's default
	Concurrency int      // how many runs go on at once in a worker; 0: as many as there are slots

	Secrets *value.Secrets // what argsrepr, events and logs do not show of its arguments and results; nil: nothing of its own

	Isolated           bool  // run in a child process, whatever the worker's pool is
	RejectOnWorkerLost *bool // give the message back when the process that ran the task is lost; nil: true
}

// settings collects the options of a definition or of a call.
type settings struct {
	Defaults

	params []string // Func's parameter names

	args      []any          // of a retry; nil: as they were
	kwargs    map[string]any // of a retry; nil: as they were
	again     bool           // these are of a retry
	scheduled bool           // eta or countdown was given, be it 0

	id, shadow, replyTo, group string
	rootID, parentID           string
	groupIndex                 *int
	retries                    int
	countdown                  time.Duration
	eta, expiresAt             time.Time
	headers                    []protocol.Header
	stampedHeaders             []string
	stamps                     map[string]json.RawMessage
	embed                      protocol.Embed
	nesting                    int // replaced_task_nesting
	publishTimeout             time.Duration
}

// inherit fills what is unset from a weaker source: a task's defaults or a route.
func (d *Defaults) inherit(from *Defaults) {
	// A destination named here stays: an exchange from below would overrule a queue, and a queue from below would
	// take the place of an exchange. Only a routing key alone goes with what the weaker source names.
	if d.Queue == "" {
		if d.Exchange == "" {
			d.Queue, d.Exchange = from.Queue, from.Exchange
		}
		d.RoutingKey = either(d.RoutingKey, from.RoutingKey)
	}
	d.Serializer = either(d.Serializer, from.Serializer)
	d.Compression = either(d.Compression, from.Compression)
	d.Expires = either(d.Expires, from.Expires)
	d.TimeLimit = either(d.TimeLimit, from.TimeLimit)
	d.SoftTimeLimit = either(d.SoftTimeLimit, from.SoftTimeLimit)
	d.Transient = d.Transient || from.Transient
	d.Priority = either(d.Priority, from.Priority)
	d.IgnoreResult = either(d.IgnoreResult, from.IgnoreResult)
	d.Secrets = either(d.Secrets, from.Secrets)
}

// either returns a unless it is zero, then b.
func either[T comparable](a, b T) T {
	var zero T
	if a == zero {
		return b
	}
	return a
}

func (d *Defaults) checkTimeLimits() error {
	if d.TimeLimit > 0 && d.SoftTimeLimit > d.TimeLimit {
		return fmt.Errorf("soft time limit %v is longer than the time limit %v", d.SoftTimeLimit, d.TimeLimit)
	}
	return nil
}

// setting is one option value with the function that applies it. The function takes the value as an argument, so that
// making an option costs no closure.
type setting[T any] struct {
	name  string
	value T
	set   func(*settings, T) error
}

func (o setting[T]) String() string {
	switch v := any(o.value).(type) {
	case struct{}:
		return o.name + "()"
	case string:
		return fmt.Sprintf("%s(%q)", o.name, v)
	case []string:
		return fmt.Sprintf("%s(%q)", o.name, v)
	case time.Time:
		return o.name + "(" + v.Format(time.RFC3339Nano) + ")"
	case []Signature:
		names := make([]string, len(v))
		for i, s := range v {
			names[i] = s.Name()
		}
		return o.name + "(" + strings.Join(names, ", ") + ")"
	}
	return fmt.Sprintf("%s(%v)", o.name, o.value)
}

type (
	sendOption[T any]   struct{ setting[T] }
	callOption[T any]   struct{ setting[T] }
	defineOption[T any] struct{ setting[T] }
	bothOption[T any]   struct{ setting[T] }
)

func (o sendOption[T]) applySend(s *settings) error     { return o.set(s, o.value) }
func (o sendOption[T]) applyRetry(s *settings) error    { return o.set(s, o.value) }
func (o callOption[T]) applySend(s *settings) error     { return o.set(s, o.value) }
func (o callOption[T]) applyRetry(*settings) error      { return errors.New("a retry cannot change it") }
func (o defineOption[T]) applyDefine(s *settings) error { return o.set(s, o.value) }
func (o bothOption[T]) applySend(s *settings) error     { return o.set(s, o.value) }
func (o bothOption[T]) applyRetry(s *settings) error    { return o.set(s, o.value) }
func (o bothOption[T]) applyDefine(s *settings) error   { return o.set(s, o.value) }

func forSend[T any](name string, v T, set func(*settings, T) error) SendOption {
	return sendOption[T]{setting[T]{name, v, set}}
}

// forCall is for what makes a call the one it is; a retry keeps that.
func forCall[T any](name string, v T, set func(*settings, T) error) SendOption {
	return callOption[T]{setting[T]{name, v, set}}
}

func forDefine[T any](name string, v T, set func(*settings, T) error) DefineOption {
	return defineOption[T]{setting[T]{name, v, set}}
}

func forBoth[T any](name string, v T, set func(*settings, T) error) Option {
	return bothOption[T]{setting[T]{name, v, set}}
}

var errEmpty = errors.New("it is empty")

func notEmpty(dst *string, v string) error {
	if v == "" {
		return errEmpty
	}
	*dst = v
	return nil
}

func positive(dst *time.Duration, d time.Duration) error {
	if d <= 0 {
		return errors.New("the duration must be positive")
	}
	*dst = d
	return nil
}

// Queue sends to the queue of this name. Celery: queue.
func Queue(name string) Option {
	return forBoth("Queue", name, func(s *settings, v string) error { return notEmpty(&s.Queue, v) })
}

// Exchange publishes to an exchange. It needs a [RoutingKey], or a [Queue] whose exchange is not a direct one.
// Celery: exchange.
func Exchange(name string) Option {
	return forBoth("Exchange", name, func(s *settings, v string) error { return notEmpty(&s.Exchange, v) })
}

// RoutingKey sets the routing key. As in Celery it counts with an [Exchange], or when the queue's exchange is not a
// direct one; a direct queue is always reached by its own name. Celery: routing_key.
func RoutingKey(key string) Option {
	return forBoth("RoutingKey", key, func(s *settings, v string) error { return notEmpty(&s.RoutingKey, v) })
}

// Priority sets the message's priority, 0 to 255. Redis knows 0 to 9 and serves low numbers first; RabbitMQ needs a
// queue with x-max-priority and serves high ones first. Celery: priority.
func Priority(n int) Option {
	return forBoth("Priority", n, func(s *settings, v int) error {
		if v < 0 || v > 255 {
			return errors.New("a priority is 0 to 255")
		}
		s.Priority = &v
		return nil
	})
}

// Serializer chooses the serializer of the body: "json", "msgpack", "yaml". The workers must accept it. Celery:
// serializer.
func Serializer(name string) Option {
	return forBoth("Serializer", name, func(s *settings, v string) error {
		if err := checkSerializer(v); err != nil {
			return err
		}
		s.Serializer = v
		return nil
	})
}

// Compression compresses the body: "gzip", "zstd", "brotli", … Celery: compression.
func Compression(name string) Option {
	return forBoth("Compression", name, func(s *settings, v string) error { return notEmpty(&s.Compression, v) })
}

// Transient asks the broker to keep the message in memory only. Celery: delivery_mode=1.
func Transient() Option {
	return forBoth("Transient", struct{}{}, func(s *settings, _ struct{}) error { s.Transient = true; return nil })
}

// Expires makes the call void when it has not started this long after sending: the worker revokes it. It replaces an
// earlier [ExpiresAt]. Celery: expires.
func Expires(after time.Duration) Option {
	return forBoth("Expires", after, func(s *settings, v time.Duration) error {
		s.expiresAt = time.Time{}
		return positive(&s.Expires, v)
	})
}

// TimeLimit is the hard limit of one run: at its end the task is a FAILURE with TimeLimitExceeded ([ErrTimeLimit]) and its
// context is cancelled. What its code still does then counts for nothing: a process is killed, while a goroutine keeps its
// slot in the worker until it returns. Celery: time_limit.
func TimeLimit(d time.Duration) Option {
	return forBoth("TimeLimit", d, func(s *settings, v time.Duration) error { return positive(&s.TimeLimit, v) })
}

// SoftTimeLimit is the time after which a run is asked to stop: the deadline of its context, which is done then with the
// cause [ErrSoftTimeLimit]. A task that returns this, or the context's own error, is a FAILURE with SoftTimeLimitExceeded;
// one that returns nil is a SUCCESS. Celery: soft_time_limit.
func SoftTimeLimit(d time.Duration) Option {
	return forBoth("SoftTimeLimit", d, func(s *settings, v time.Duration) error { return positive(&s.SoftTimeLimit, v) })
}

// IgnoreResult says whether the result is thrown away. Unset, the message leaves it to the worker's own definition of
// the task. Celery: ignore_result.
func IgnoreResult(ignore bool) Option {
	return forBoth("IgnoreResult", ignore, func(s *settings, v bool) error { s.IgnoreResult = &v; return nil })
}

// TrackStarted stores the state STARTED when a run begins, or does not, whatever the worker's default is. Celery:
// track_started.
func TrackStarted(on bool) DefineOption {
	return forDefine("TrackStarted", on, func(s *settings, v bool) error { s.TrackStarted = &v; return nil })
}

// Isolated runs the task in a child process of the worker, also where its pool is goroutines: it can be killed then, and
// whatever it does to its process harms no other task. Celery has no equal.
func Isolated() DefineOption {
	return forDefine("Isolated", struct{}{}, func(s *settings, _ struct{}) error { s.Isolated = true; return nil })
}

// RejectOnWorkerLost says what becomes of the task when the child process that runs it is lost (killed, crashed, ended by
// os.Exit). With true its message goes back and it runs again, here or elsewhere; with false it is a FAILURE with
// WorkerLostError, which is Celery's default, but not ours. A message that was acknowledged early is a FAILURE in any
// case. Celery: reject_on_worker_lost.
func RejectOnWorkerLost(reject bool) DefineOption {
	return forDefine("RejectOnWorkerLost", reject, func(s *settings, v bool) error { s.RejectOnWorkerLost = &v; return nil })
}

// Lenient drops unknown keyword arguments where Python would raise a TypeError: for the time when callers and workers
// are changed one after the other.
func Lenient() DefineOption {
	return forDefine("Lenient", struct{}{}, func(s *settings, _ struct{}) error { s.Lenient = true; return nil })
}

// Params names the parameters of a [Func], so that callers may use keywords. The context and a variadic parameter are
// not counted.
func Params(names ...string) DefineOption {
	return forDefine("Params", names, func(s *settings, v []string) error {
		if slices.Contains(v, "") {
			return errEmpty
		}
		s.params = append([]string{}, v...)
		return nil
	})
}

// Countdown starts the task no earlier than this after sending. It replaces an earlier [ETA]. A negative one is refused,
// but in a [Retry] it means at once. Celery: countdown.
func Countdown(d time.Duration) SendOption {
	return forSend("Countdown", d, func(s *settings, v time.Duration) error {
		if s.again {
			v = max(v, 0)
		}
		if v < 0 {
			return errors.New("the duration is negative")
		}
		s.countdown, s.eta, s.scheduled = v, time.Time{}, true
		return nil
	})
}

// ETA starts the task no earlier than t; a time in the past means at once. It replaces an earlier [Countdown]. Celery:
// eta.
func ETA(t time.Time) SendOption {
	return forSend("ETA", t, func(s *settings, v time.Time) error {
		s.eta, s.countdown, s.scheduled = v, 0, true
		return checkTime(v)
	})
}

// ExpiresAt makes the call void when it has not started at t. It replaces an earlier [Expires]. Celery: expires with a
// datetime.
func ExpiresAt(t time.Time) SendOption {
	return forSend("ExpiresAt", t, func(s *settings, v time.Time) error {
		s.expiresAt, s.Expires = v, 0
		return checkTime(v)
	})
}

// checkTime refuses times whose ISO form Python's datetime cannot read.
func checkTime(t time.Time) error {
	if t.IsZero() {
		return errors.New("the time is zero")
	}
	return value.CheckTime(t.UTC())
}

// Header adds a custom header; v is any value JSON can carry. A standard header's name is refused. Celery: headers.
func Header(name string, v any) SendOption {
	return Headers(map[string]any{name: v})
}

// Headers adds custom headers, see [Header].
func Headers(all map[string]any) SendOption {
	return forSend("Headers", all, func(s *settings, v map[string]any) error {
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if name == "" || slices.Contains(standardHeaders, name) {
				return fmt.Errorf("%q is not a name for a custom header", name)
			}
			text, err := headerText(v[name])
			if err != nil {
				return fmt.Errorf("header %q: %w", name, err)
			}
			s.headers = append(s.headers, protocol.Header{Name: name, Value: text})
		}
		return nil
	})
}

// headerText encodes a value that travels among the headers. kombu 5.3 and later ends a worker over an object there
// that looks like a typed value of a type it does not know.
func headerText(v any) (json.RawMessage, error) {
	text, err := serialization.AppendJSON(nil, v)
	if err != nil {
		return nil, err
	}
	decoded, err := serialization.DecodeJSON(text) // known typed values are values now, unknown ones are still dicts
	if err == nil && holdsUnknownType(decoded) {
		err = errors.New("an object of just __type__ and __value__ would end the Python worker that receives it")
	}
	return text, err
}

func holdsUnknownType(v any) bool {
	switch v := v.(type) {
	case []any:
		return slices.ContainsFunc(v, holdsUnknownType)
	case map[string]any:
		_, typed := v["__type__"]
		_, valued := v["__value__"]
		if typed && valued && len(v) == 2 {
			return true
		}
		for _, e := range v {
			if holdsUnknownType(e) {
				return true
			}
		}
	}
	return false
}

// standardHeaders are the names a custom header would overwrite: Celery merges both into one map.
var standardHeaders = []string{
	"lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id",
	"parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers",
	"stamps", "compression", "redelivered",
}

// Stamp marks the call, and with Celery 5.3 or later what follows from it, with a name and a value. Celery: stamping.
func Stamp(name string, v any) SendOption {
	return forSend("Stamp", stamp{name, v}, func(s *settings, v stamp) error {
		if v.name == "" {
			return errEmpty
		}
		text, err := headerText(v.value)
		if err != nil {
			return err
		}
		if s.stamps == nil {
			s.stamps = map[string]json.RawMessage{}
		}
		if _, again := s.stamps[v.name]; !again {
			s.stampedHeaders = append(s.stampedHeaders, v.name)
		}
		s.stamps[v.name] = text
		return nil
	})
}

type stamp struct {
	name  string
	value any
}

// Shadow is another name for the task in logs and monitors. Celery: shadow.
func Shadow(name string) SendOption {
	return forSend("Shadow", name, func(s *settings, v string) error { s.shadow = v; return nil })
}

// ID sets the task's id, a random UUID otherwise. Celery: task_id.
func ID(id string) SendOption {
	return forCall("ID", id, func(s *settings, v string) error { return notEmpty(&s.id, v) })
}

// ReplyTo names the queue to which an rpc:// backend sends the result; the client's own otherwise. Who names another
// does not hear of it here. Celery: reply_to.
func ReplyTo(queue string) SendOption {
	return forSend("ReplyTo", queue, func(s *settings, v string) error { return notEmpty(&s.replyTo, v) })
}

// Link adds what runs when the task succeeds, with its result as the first argument: tasks, or whole workflows. Celery:
// link.
func Link(next ...Signature) SendOption {
	return forSend("Link", next, func(s *settings, v []Signature) (err error) {
		s.embed.Callbacks, err = appendWire(s.embed.Callbacks, v)
		return err
	})
}

// LinkError adds tasks that run when this one fails, with its id as their first argument. Celery: link_error.
func LinkError(errbacks ...Signature) SendOption {
	return forSend("LinkError", errbacks, func(s *settings, v []Signature) (err error) {
		s.embed.Errbacks, err = appendWire(s.embed.Errbacks, v)
		return err
	})
}

func appendWire(list []protocol.Signature, more []Signature) ([]protocol.Signature, error) {
	wire, err := wires(more)
	return append(slices.Clip(list), wire...), err
}

// PublishTimeout bounds this Send, reconnecting included, in place of [Config].PublishTimeout; the context's own deadline
// still holds. Of the calls of a batch, which travel together, the shortest counts. It must be positive.
//
// It stands for Celery's retry_policy. The transport retries with a back-off of its own until the time is up, so a policy
// becomes the time it would take: max_retries waits, from interval_start by steps of interval_step up to interval_max,
// and the attempts between them. max_retries=None, without end, is a very long one. There is nothing like retry=False;
// a short timeout comes nearest. It is the sender's own affair, so a signature does not carry it.
func PublishTimeout(d time.Duration) SendOption {
	return forCall("PublishTimeout", d, func(s *settings, v time.Duration) error { return positive(&s.publishTimeout, v) })
}

// Retries is how often the call has been tried before. Celery: retries.
func Retries(n int) SendOption {
	return forCall("Retries", n, func(s *settings, v int) error {
		if v < 0 {
			return errors.New("the number is negative")
		}
		s.retries = v
		return nil
	})
}

// GroupID makes the call a member of a group, at a place that orders its results; [Group] makes whole groups. Celery:
// group_id, group_index.
func GroupID(id string, index int) SendOption {
	return forCall("GroupID", groupPlace{id, index}, func(s *settings, v groupPlace) error {
		if v.index < 0 {
			return errors.New("the index is negative")
		}
		s.groupIndex = &v.index
		return notEmpty(&s.group, v.id)
	})
}

type groupPlace struct {
	id    string
	index int
}

// RootID overrides the id of the workflow's first task, which is otherwise the running task's root, or outside of a task
// the call's own id. Celery: root_id.
func RootID(id string) SendOption {
	return forCall("RootID", id, func(s *settings, v string) error { return notEmpty(&s.rootID, v) })
}

// ParentID overrides the id of the sending task. Celery: parent_id.
func ParentID(id string) SendOption {
	return forCall("ParentID", id, func(s *settings, v string) error { return notEmpty(&s.parentID, v) })
}
