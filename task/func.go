package task

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
)

// Func makes a task of a plain function, for tasks that do not deserve a struct:
//
//	task.Func("tasks.add", func(ctx context.Context, x, y int) (int, error) { return x + y, nil }, task.Params("x", "y"))
//
// The context may be left out. A variadic parameter takes *args. The results are (R, error), error alone, or none.
// Go does not keep the names of parameters, so callers can give them by position only until [Params] names them.
// Producers send such a task by name, with [Client.Send].
//
// A call goes through reflection, some hundred nanoseconds more than a task made by [Define]. Func panics when fn is
// no such function; [TryFunc] returns the error.
func Func(name string, fn any, opts ...DefineOption) Definition {
	d, err := TryFunc(name, fn, opts...)
	if err != nil {
		panic(err)
	}
	return d
}

// TryFunc is [Func] returning its error.
func TryFunc(name string, fn any, opts ...DefineOption) (Definition, error) {
	s, err := defineSettings(name, opts)
	if err != nil {
		return Definition{}, err
	}
	f, err := newFunction(name, fn, s.params)
	if err != nil {
		return Definition{}, fmt.Errorf("task %q: %w", name, err)
	}
	f.plan.lenient = s.Lenient
	s.Defaults.Secrets = f.secrets()
	return Definition{Name: name, Defaults: s.Defaults, Handler: f.handle}, nil
}

// function is a plain function with the plan that binds calls to it. Its parameters are the fields of a struct type
// made up for them, so that there is one way of binding.
type function struct {
	fn         reflect.Value
	plan       *plan
	frame      reflect.Type // the struct of parameters
	hasContext bool
	hasError   bool
	hasResult  bool
}

func newFunction(name string, fn any, names []string) (*function, error) {
	v := reflect.ValueOf(fn)
	if v.Kind() != reflect.Func || v.IsNil() {
		return nil, fmt.Errorf("%T is not a function", fn)
	}
	t := v.Type()
	f := &function{fn: v, plan: &plan{fn: functionName(name)}}
	if err := f.readResults(t); err != nil {
		return nil, err
	}
	var inputs []reflect.Type
	for i := range t.NumIn() {
		if i == 0 && t.In(0) == reflect.TypeFor[context.Context]() {
			f.hasContext = true
			continue
		}
		inputs = append(inputs, t.In(i))
	}
	fixed := len(inputs)
	if t.IsVariadic() {
		fixed--
	}
	if names != nil && len(names) != fixed {
		return nil, fmt.Errorf("Params names %d parameters, the function has %d", len(names), fixed)
	}
	return f, f.addParams(inputs, fixed, names)
}

// secrets are what is not to be shown: a function's own parameters have no tags, but the fields of their types may.
func (f *function) secrets() *value.Secrets {
	for i := range f.frame.NumField() {
		f.plan.fields = append(f.plan.fields, value.Field{Type: f.frame.Field(i).Type})
	}
	var result reflect.Type
	if f.hasResult {
		result = f.fn.Type().Out(0)
	}
	return f.plan.secrets(result)
}

func (f *function) readResults(t reflect.Type) error {
	isError := func(i int) bool { return t.Out(i) == reflect.TypeFor[error]() }
	switch n := t.NumOut(); {
	case n == 0:
	case n == 1 && isError(0):
		f.hasError = true
	case n == 2 && isError(1):
		f.hasResult, f.hasError = true, true
	default:
		return errors.New("the function must return (result, error), error or nothing")
	}
	return nil
}

func (f *function) addParams(inputs []reflect.Type, fixed int, names []string) error {
	fields := make([]reflect.StructField, len(inputs))
	for i, t := range inputs {
		fields[i] = reflect.StructField{Name: "P" + strconv.Itoa(i), Type: t}
		elem := t
		if i == fixed {
			elem = t.Elem()
		}
		assign, err := value.AssignerFor(elem)
		if err != nil {
			return fmt.Errorf("parameter %d: %w", i+1, err)
		}
		if i == fixed {
			f.plan.varargs = &variadic{name: "args", index: []int{i}, assign: assign}
			break
		}
		q := param{name: "arg" + strconv.Itoa(i+1), index: []int{i}, assign: assign, required: true, posonly: names == nil}
		if names != nil {
			q.name = names[i]
		}
		f.plan.params = append(f.plan.params, q)
	}
	if names == nil && fixed > 0 {
		f.plan.hint = " (the Go function's parameters have no names; task.Params gives them)"
	}
	f.frame = reflect.StructOf(fields)
	return f.plan.order()
}

func (f *function) handle(ctx context.Context, r *protocol.Request) (any, error) {
	frame := reflect.New(f.frame).Elem()
	if err := f.plan.bind(frame, r.Args, r.Kwargs); err != nil {
		return nil, err
	}
	in := make([]reflect.Value, 0, 1+frame.NumField())
	if f.hasContext {
		in = append(in, reflect.ValueOf(ctx))
	}
	for i := range frame.NumField() {
		in = append(in, frame.Field(i))
	}
	var out []reflect.Value
	if f.plan.varargs != nil {
		out = f.fn.CallSlice(in)
	} else {
		out = f.fn.Call(in)
	}
	var err error
	if f.hasError {
		err, _ = out[len(out)-1].Interface().(error)
	}
	if !f.hasResult || err != nil {
		return nil, err
	}
	return out[0].Interface(), nil
}
