package task

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/canvas"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
)

// Signature is a call that is not sent yet, or a workflow of such calls: Celery's signature. It is a value that never
// changes; its methods return changed copies. [Client.Apply] sends it, [Link] makes it a callback, and [Chain], [Group]
// and [Chord] compose it:
//
//	task.Chord(task.Group(Add.S(AddArgs{1, 2}), Add.S(AddArgs{3, 4})), Sum.Rest())
//
// An argument or an option that cannot be sent is an error of the signature, which whatever sends it returns. The zero
// Signature names no task and is such an error too.
type Signature struct {
	wire protocol.Signature
	err  error
}

// S is the signature of a call: Celery's task.s(). A task that runs it as a callback or as a chain's step puts its result
// before the arguments, see [Task.Rest]. The task's own defaults travel with it, so that a worker which does not know the
// task sends it as this program would.
func (t *Task[A, R]) S(a A, opts ...SendOption) Signature {
	args, kwargs := t.Arguments(a)
	return newSignature(t.name, &t.defaults, args, kwargs, opts)
}

// Rest is the signature of a call whose first arguments come from what ran before it; these are the others. Celery:
// add.s(4) in a chain.
func (t *Task[A, R]) Rest(args ...any) Signature {
	return newSignature(t.name, &t.defaults, args, nil, nil)
}

// S is the signature of a task known by its name only.
func S(name string, args ...any) Signature { return newSignature(name, nil, args, nil, nil) }

func newSignature(name string, defaults *Defaults, args []any, kwargs map[string]any, opts []SendOption) Signature {
	s := Signature{wire: protocol.Signature{Task: name, Options: map[string]any{}}}
	if defaults != nil {
		options, err := (&settings{Defaults: *defaults}).dict()
		if err != nil {
			return s.fail(err)
		}
		s.wire.Options = options
	}
	return s.Args(args...).Kwargs(kwargs).With(opts...)
}

// SignatureOf takes a signature in the form in which messages hold it, in any language's spelling.
func SignatureOf(wire protocol.Signature) Signature { return Signature{wire: wire} }

// Wire is the signature as messages hold it. The error is that of the signature.
func (s Signature) Wire() (protocol.Signature, error) {
	switch {
	case s.err != nil:
		return protocol.Signature{}, s.err
	case s.wire.Task == "":
		return protocol.Signature{}, errors.New("a signature names no task")
	}
	return s.wire, nil
}

func wires(all []Signature) ([]protocol.Signature, error) {
	list := make([]protocol.Signature, len(all))
	for i, s := range all {
		var err error
		if list[i], err = s.Wire(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Name is the name of the task; of a workflow "celery.chain", "celery.group" or "celery.chord".
func (s Signature) Name() string { return s.wire.Task }

// Err is what is wrong with the signature; nil if it can be sent.
func (s Signature) Err() error {
	_, err := s.Wire()
	return err
}

// MarshalJSON writes the signature as messages hold it, which Python's signature() reads.
func (s Signature) MarshalJSON() ([]byte, error) {
	wire, err := s.Wire()
	if err != nil {
		return nil, err
	}
	return serialization.AppendJSON(nil, wire.Value())
}

// String is how Celery shows a signature: "tasks.add(2, 2) | tasks.mul(4)".
func (s Signature) String() string {
	var all []string
	each := func(v any) string {
		wire, err := protocol.SignatureFromValue(v)
		if err != nil {
			return "?"
		}
		return Signature{wire: wire}.String()
	}
	list, _ := s.wire.Kwargs["tasks"].([]any)
	switch canvas.Kind(&s.wire) {
	case "chain":
		for _, v := range list {
			all = append(all, each(v))
		}
		return strings.Join(all, " | ")
	case "group":
		for _, v := range list {
			all = append(all, each(v))
		}
		return "group([" + strings.Join(all, ", ") + "])"
	case "chord":
		header, _ := s.wire.Kwargs["header"].([]any)
		if header == nil {
			return "chord(" + each(s.wire.Kwargs["header"]) + ", " + each(s.wire.Kwargs["body"]) + ")"
		}
		for _, v := range header {
			all = append(all, each(v))
		}
		return "chord([" + strings.Join(all, ", ") + "], " + each(s.wire.Kwargs["body"]) + ")"
	}
	for _, a := range s.wire.Args {
		all = append(all, value.Repr(a, reprSize))
	}
	for _, name := range slices.Sorted(maps.Keys(s.wire.Kwargs)) {
		all = append(all, name+"="+value.Repr(s.wire.Kwargs[name], reprSize))
	}
	return s.wire.Task + "(" + strings.Join(all, ", ") + ")"
}

// change returns a copy whose options may be written.
func (s Signature) change() Signature {
	s.wire.Options = maps.Clone(s.wire.Options)
	if s.wire.Options == nil {
		s.wire.Options = map[string]any{}
	}
	return s
}

// fail returns a copy with an error, unless it has one.
func (s Signature) fail(err error) Signature {
	if s.err == nil {
		s.err = fmt.Errorf("signature of %s: %w", either(s.wire.Task, "no task"), err)
	}
	return s
}

// With sets options: Celery's set and clone. Of a workflow they are those of its tasks: of a chain's first one, of all in a
// group, of a chord's header and body. [ID], [Link] and [LinkError] are about the whole: the last task of a chain, the body of a chord.
func (s Signature) With(opts ...SendOption) Signature {
	if len(opts) == 0 {
		return s
	}
	set := &settings{}
	for _, o := range opts {
		if err := o.applySend(set); err != nil {
			return s.fail(fmt.Errorf("option %v: %w", o, err))
		}
	}
	options, err := set.dict()
	if err != nil {
		return s.fail(err)
	}
	s = s.change()
	for name, v := range options {
		if name == "link" || name == "link_error" {
			s.wire.Options[name] = append(slices.Clone(list(s.wire.Options[name])), list(v)...)
			continue
		}
		if name == "stamped_headers" {
			have := list(s.wire.Options[name])
			for _, header := range list(v) {
				if !slices.Contains(have, header) {
					have = append(slices.Clip(have), header)
				}
			}
			v = have
		}
		s.wire.Options[name] = v
	}
	return s
}

func list(v any) []any {
	all, _ := v.([]any)
	return all
}

// Args puts arguments before those that the signature has: in a workflow, before those of whatever begins it.
func (s Signature) Args(args ...any) Signature {
	all := make([]any, 0, len(args)+len(s.wire.Args))
	for i, a := range args {
		v, err := value.Of(a)
		if err != nil {
			return s.fail(fmt.Errorf("argument %d: %w", i, err))
		}
		all = append(all, v)
	}
	s.wire.Args = append(all, s.wire.Args...)
	return s
}

// Kwargs sets keyword arguments, beside those that the signature has. A workflow has none of its own.
func (s Signature) Kwargs(kwargs map[string]any) Signature {
	if len(kwargs) > 0 && (canvas.Kind(&s.wire) != "" || s.wire.Kwargs["it"] != nil && s.wire.Immutable) {
		return s.fail(errors.New("a workflow takes no keyword arguments: give them to its tasks"))
	}
	all := make(map[string]any, len(s.wire.Kwargs)+len(kwargs))
	maps.Copy(all, s.wire.Kwargs)
	for name, a := range kwargs {
		v, err := value.Of(a)
		if err != nil {
			return s.fail(fmt.Errorf("argument %s: %w", name, err))
		}
		all[name] = v
	}
	s.wire.Kwargs = all
	return s
}

// Immutable is the signature as one that takes no result of what ran before it: Celery's task.si(). Of a group all members are
// so, of a chord the header.
func (s Signature) Immutable() Signature {
	switch canvas.Kind(&s.wire) {
	case "group":
		return s.eachOf("tasks", Signature.Immutable)
	case "chord":
		return s.eachOf("header", Signature.Immutable)
	}
	s.wire.Immutable = true
	return s
}

// eachOf changes the signatures that a workflow holds under some name.
func (s Signature) eachOf(name string, change func(Signature) Signature) Signature {
	if s.err != nil {
		return s
	}
	each := func(v any) (any, error) {
		wire, err := protocol.SignatureFromValue(v)
		if err != nil {
			return nil, err
		}
		changed, err := change(Signature{wire: wire}).Wire()
		return changed.Value(), err
	}
	var held any
	var err error
	if all, ok := s.wire.Kwargs[name].([]any); ok {
		copies := make([]any, len(all))
		for i, v := range all {
			if copies[i], err = each(v); err != nil {
				return s.fail(err)
			}
		}
		held = copies
	} else if held, err = each(s.wire.Kwargs[name]); err != nil {
		return s.fail(err)
	}
	s.wire.Kwargs = maps.Clone(s.wire.Kwargs)
	s.wire.Kwargs[name] = held
	return s
}

// Link is the signature with callbacks, see the option [Link].
func (s Signature) Link(next ...Signature) Signature { return s.With(Link(next...)) }

// LinkError is the signature with error callbacks, see the option [LinkError]. Those of a chain are called when any of its
// steps fails, those of a group when any member does, those of a chord when its body does or cannot be called.
func (s Signature) LinkError(errbacks ...Signature) Signature { return s.With(LinkError(errbacks...)) }

// Then is the signature followed by others: Celery's "|". See [Chain].
func (s Signature) Then(next ...Signature) Signature {
	return Chain(append([]Signature{s}, next...)...)
}
