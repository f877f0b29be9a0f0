package task

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/gelery/gelery/protocol"
)

// NoArgs is the argument type of a task without arguments.
type NoArgs = struct{}

// NoResult is the result type of a task that returns nothing: None in Python.
type NoResult = struct{}

// Raw is the argument type of a task that wants its arguments as they were received: canonical values of package
// protocol/value, bound to nothing. It accepts every call, like def f(*args, **kwargs).
type Raw struct {
	Args   []any
	Kwargs map[string]any
}

// Task is a task both sides know: its name, the types of its arguments and of its result, and its defaults. Producers
// call [Task.Send], workers register it with a function. It is immutable and safe for concurrent use.
type Task[A, R any] struct {
	name     string
	defaults Defaults
	plan     *plan // nil when A is Raw
}

// Define declares a task. The name is Celery's, kept verbatim: "shop.tasks.charge".
//
// A is a struct whose exported fields are the parameters, in order, as in a Python signature. Its tags say more:
//
//	type Args struct {
//		User  int            `task:"user_id"`            // positional or keyword; the name defaults to snake_case
//		Limit int            `task:"limit,default=10"`   // optional; JSON or plain text, without commas
//		Token string         `task:"token,posonly"`      // before a "/" in Python; only the first fields can be
//		Dry   bool           `task:"dry,kwonly"`         // after a "*" in Python
//		Key   string         `task:"key,secret"`         // not shown in argsrepr, events and logs
//		Items []string       `task:",varargs"`           // *args; later fields are keyword-only
//		Rest  map[string]any `task:",remain"`            // **kwargs
//	}
//
// [NoArgs] is a task without parameters, [Raw] takes anything. R is any type package value can encode; [NoResult] is
// None. Define panics when A cannot be bound or an option is invalid; [TryDefine] returns the error.
func Define[A, R any](name string, opts ...DefineOption) *Task[A, R] {
	t, err := TryDefine[A, R](name, opts...)
	if err != nil {
		panic(err)
	}
	return t
}

// TryDefine is [Define] returning its error.
func TryDefine[A, R any](name string, opts ...DefineOption) (*Task[A, R], error) {
	s, err := defineSettings(name, opts)
	if err != nil {
		return nil, err
	}
	if s.params != nil {
		return nil, fmt.Errorf("task %q: Params names the parameters of Func; the fields of a struct have names", name)
	}
	t := &Task[A, R]{name: name, defaults: s.Defaults}
	if typ := reflect.TypeFor[A](); typ != reflect.TypeFor[Raw]() {
		if t.plan, err = structPlan(name, typ); err != nil {
			return nil, fmt.Errorf("task %q: %w", name, err)
		}
		t.plan.lenient = s.Lenient
		t.defaults.Secrets = t.plan.secrets(reflect.TypeFor[R]())
	}
	return t, nil
}

// defineSettings applies the options of a definition and checks its name.
func defineSettings(name string, opts []DefineOption) (*settings, error) {
	if name == "" {
		return nil, errors.New("a task needs a name")
	}
	s := &settings{}
	for _, o := range opts {
		if err := o.applyDefine(s); err != nil {
			return nil, fmt.Errorf("task %q: option %v: %w", name, o, err)
		}
	}
	if err := s.checkTimeLimits(); err != nil {
		return nil, fmt.Errorf("task %q: %w", name, err)
	}
	return s, nil
}

// Name is the task's name on the wire.
func (t *Task[A, R]) Name() string { return t.name }

// Defaults are the task's own options, for producers and workers.
func (t *Task[A, R]) Defaults() Defaults { return t.defaults }

// Bind binds positional and keyword arguments to A by Python's call rules. A violation is a [*BindError] with the text
// Python 3.11 would give; so is a value of the wrong type.
func (t *Task[A, R]) Bind(args []any, kwargs map[string]any) (A, error) {
	var a A
	if t.plan == nil {
		*any(&a).(*Raw) = Raw{Args: args, Kwargs: kwargs}
		return a, nil
	}
	err := t.plan.bind(reflect.ValueOf(&a).Elem(), args, kwargs)
	return a, err
}

// Arguments is the reverse of Bind: what a call with a puts on the wire. Parameters go positionally in field order, so
// that a Python function may name them differently; keyword-only ones and the remaining keywords go as keywords. Every
// parameter is sent, zero values too: a Go zero is a value, not an absence.
func (t *Task[A, R]) Arguments(a A) (args []any, kwargs map[string]any) {
	if raw, ok := any(a).(Raw); ok {
		return raw.Args, raw.Kwargs
	}
	return t.plan.arguments(reflect.ValueOf(&a).Elem())
}

// Handler turns a typed function into the untyped form workers run.
func (t *Task[A, R]) Handler(fn func(context.Context, A) (R, error)) Handler {
	if reflect.TypeFor[R]() == reflect.TypeFor[NoResult]() {
		return func(ctx context.Context, r *protocol.Request) (any, error) {
			a, err := t.Bind(r.Args, r.Kwargs)
			if err == nil {
				_, err = fn(ctx, a)
			}
			return nil, err
		}
	}
	return func(ctx context.Context, r *protocol.Request) (any, error) {
		a, err := t.Bind(r.Args, r.Kwargs)
		if err != nil {
			return nil, err
		}
		return fn(ctx, a)
	}
}

// Definition pairs the task with the function that does its work.
func (t *Task[A, R]) Definition(fn func(context.Context, A) (R, error)) Definition {
	return Definition{Name: t.name, Defaults: t.defaults, Handler: t.Handler(fn)}
}

// Call is a call of the task for [Client.SendBatch], with the task's defaults.
func (t *Task[A, R]) Call(a A, opts ...SendOption) Call {
	args, kwargs := t.Arguments(a)
	return Call{Name: t.name, Args: args, Kwargs: kwargs, Options: opts, defaults: &t.defaults}
}

// Send publishes a call and returns when the broker has it: Celery's apply_async. Options given here win over the
// task's defaults. See [Client.Send] for the errors.
func (t *Task[A, R]) Send(ctx context.Context, c *Client, a A, opts ...SendOption) (*Result[R], error) {
	call := t.Call(a, opts...)
	r, err := c.send(ctx, &call)
	if err != nil {
		return nil, err
	}
	return &Result[R]{r}, nil
}

// SendBatch publishes one call for each a, all with the same options, in one round trip. See [Client.SendBatch].
func (t *Task[A, R]) SendBatch(ctx context.Context, c *Client, all []A, opts ...SendOption) ([]*Result[R], error) {
	calls := make([]Call, len(all))
	for i, a := range all {
		calls[i] = t.Call(a, opts...)
	}
	handles, err := c.sendBatch(ctx, calls)
	if err != nil {
		return nil, err
	}
	results := make([]*Result[R], len(handles))
	for i, h := range handles {
		results[i] = &Result[R]{h}
	}
	return results, nil
}

// Handler runs one task call: it binds the arguments, does the work and returns what is stored as the result. This is
// the untyped form every registered task ends up as; [Task.Handler] and [Func] make one.
//
// The error decides the outcome: nil is SUCCESS, [Ignore] and [Reject] mean what Celery's exceptions of these names
// mean, anything else is FAILURE with the exception [ExceptionOf] makes of it.
type Handler func(ctx context.Context, r *protocol.Request) (any, error)

// Middleware wraps a handler, for logging, tracing, recovery and the like. It sees the request before its arguments are
// bound.
type Middleware func(next Handler) Handler

// Definition is a task a worker can run: what its registry holds.
type Definition struct {
	Name     string
	Defaults Defaults
	Handler  Handler
}
