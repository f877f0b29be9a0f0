package protocol

import (
	"strings"

	"github.com/gelery/gelery/protocol/value"
)

// maxRepr bounds the text made of an exception's arguments, in bytes.
const maxRepr = 4096

// Exception is a Python exception as results carry it.
type Exception struct {
	Type   string // class name, e.g. "ValueError"
	Module string // e.g. "builtins"
	Args   []any  // the constructor's arguments, canonical values
}

// Error is the exception as the last line of a Python traceback shows it: "ValueError: bad".
func (e *Exception) Error() string {
	switch len(e.Args) {
	case 0:
		return e.Type
	case 1:
		if text, ok := e.Args[0].(string); ok {
			return e.Type + ": " + text
		}
		return e.Type + ": " + value.Repr(e.Args[0], maxRepr)
	}
	return e.Type + ": " + value.ReprTuple(e.Args, maxRepr)
}

// String is Python's repr of the exception: ValueError('bad', 42). ChordError messages quote it.
func (e *Exception) String() string { return e.Repr(&value.Secrets{}) }

// Repr is String with '********' for each secret in the arguments: what a dict has under such a name.
func (e *Exception) Repr(secrets *value.Secrets) string {
	var b strings.Builder
	b.WriteString(e.Type)
	b.WriteByte('(')
	for i, arg := range e.Args {
		if i > 0 {
			b.WriteString(", ")
		}
		if b.Len() > maxRepr {
			b.WriteString("...")
			break
		}
		b.WriteString(secrets.Repr(arg, maxRepr))
	}
	b.WriteByte(')')
	return b.String()
}

// Value is the exception as a result document holds it: an object of exc_type, exc_message and exc_module.
func (e *Exception) Value() map[string]any {
	args := e.Args
	if args == nil {
		args = []any{}
	}
	return map[string]any{"exc_type": e.Type, "exc_message": args, "exc_module": e.Module}
}

// ExceptionFromValue reads an exception from a result document. It takes what Celery takes and more: exc_message may
// be one value in place of a list, null or absent, and exc_module null or absent. What is not an exception object at
// all, a plain text or null, becomes an Exception of type "Exception" with that as its argument, so that a failure
// stays one.
func ExceptionFromValue(v any) *Exception {
	object, ok := v.(map[string]any)
	name, named := object["exc_type"].(string)
	if !ok || !named {
		e := &Exception{Type: "Exception", Module: "builtins"}
		if v != nil {
			e.Args = []any{v}
		}
		return e
	}
	e := &Exception{Type: name}
	e.Module, _ = object["exc_module"].(string)
	switch args := object["exc_message"].(type) {
	case nil:
	case []any:
		if len(args) > 0 {
			e.Args = args
		}
	default:
		e.Args = []any{args}
	}
	return e
}
