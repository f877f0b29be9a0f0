package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
)

// AsPython gives an error the class Python callers see: module and class as they import it, and the arguments of its
// constructor; without any, the error's text is the only one. The error itself stays as it is for errors.Is and As, and
// PyError of the class matches too. A nil err gives an error that is only the exception.
//
//	return task.AsPython(err, "shop.errors", "CardDeclined", order.ID, "insufficient funds")
//	var ErrDeclined = task.AsPython(errors.New("card declined"), "shop.errors", "CardDeclined")
//
// Python rebuilds the exception from a class of that name when the module is imported there, and makes one up if not. The
// arguments must be values a result can hold.
func AsPython(err error, module, class string, args ...any) error {
	return &pythonError{err: err, module: module, class: class, args: args}
}

type pythonError struct {
	err           error
	module, class string
	args          []any
}

func (e *pythonError) Error() string {
	if e.err != nil {
		return e.err.Error()
	}
	x := e.exception("")
	return qualified(x.Module, x.Type) + ": " + pythonStr(x)
}

func (e *pythonError) Unwrap() error        { return e.err }
func (e *pythonError) Is(target error) bool { return isPyError(target, e.module, e.class) }

func (e *pythonError) exception(text string) *protocol.Exception {
	if len(e.args) == 0 && text != "" {
		return &protocol.Exception{Type: e.class, Module: e.module, Args: []any{text}}
	}
	return &protocol.Exception{Type: e.class, Module: e.module, Args: canonicalArgs(e.args)}
}

// canonicalArgs makes arguments storable. As in Celery, one that cannot be is replaced by a text of it.
func canonicalArgs(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		v, err := value.Of(a)
		if err != nil {
			v = fmt.Sprint(a)
		}
		out[i] = v
	}
	return out
}

// ExceptionOf is the Python exception a task's error is stored as; nil for nil.
//
// Errors of [AsPython] say it themselves, and the exception of another task ([*Error]) is passed on as it is. Errors of
// Go's standard library that have a counterpart in Python become that: context.DeadlineExceeded a TimeoutError,
// fs.ErrNotExist a FileNotFoundError, a JSON or number syntax error a ValueError, a runtime panic a RuntimeError, and so
// on. Any other error becomes a class named like its Go type, in a module named like its import path, with the error's
// text as its argument; errors without a type of their own (errors.New, fmt.Errorf) become a plain Exception.
func ExceptionOf(err error) *protocol.Exception {
	if err == nil {
		return nil
	}
	text := err.Error()
	if e, ok := errors.AsType[*pythonError](err); ok {
		return e.exception(text)
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Type != "" {
		return &protocol.Exception{Type: e.Type, Module: e.Module, Args: e.Args}
	}
	if e, ok := errors.AsType[*protocol.Exception](err); ok {
		return e
	}
	if e, ok := errors.AsType[*TimeLimitError](err); ok {
		return &protocol.Exception{Type: "TimeLimitExceeded", Module: "billiard.exceptions", Args: []any{seconds(e.Limit)}}
	}
	module, class := classOf(err)
	return &protocol.Exception{Type: class, Module: module, Args: []any{text}}
}

// seconds is a duration as Python counts it: an int if it is whole.
func seconds(d time.Duration) any {
	if d%time.Second == 0 {
		return int64(d / time.Second)
	}
	return d.Seconds()
}

// knownErrors are Go errors by identity with the Python class that means the same.
var knownErrors = []struct {
	err           error
	module, class string
}{
	{ErrRevoked, "celery.exceptions", "TaskRevokedError"},
	{ErrNotRegistered, "celery.exceptions", "NotRegistered"},
	{ErrSoftTimeLimit, "billiard.exceptions", "SoftTimeLimitExceeded"},
	{ErrTimeLimit, "billiard.exceptions", "TimeLimitExceeded"},
	{ErrWorkerLost, "billiard.exceptions", "WorkerLostError"},
	{ErrUnknownQueue, "celery.exceptions", "QueueNotFound"},
	{context.DeadlineExceeded, "builtins", "TimeoutError"},
	{os.ErrDeadlineExceeded, "builtins", "TimeoutError"},
	{fs.ErrNotExist, "builtins", "FileNotFoundError"},
	{fs.ErrExist, "builtins", "FileExistsError"},
	{fs.ErrPermission, "builtins", "PermissionError"},
	{syscall.ECONNREFUSED, "builtins", "ConnectionRefusedError"},
	{syscall.ECONNRESET, "builtins", "ConnectionResetError"},
	{syscall.EPIPE, "builtins", "BrokenPipeError"},
	{strconv.ErrSyntax, "builtins", "ValueError"},
	{strconv.ErrRange, "builtins", "ValueError"},
	{io.EOF, "builtins", "EOFError"},
	{io.ErrUnexpectedEOF, "builtins", "EOFError"},
	{errors.ErrUnsupported, "builtins", "NotImplementedError"},
}

// classOf finds the Python class of an error that does not name one.
func classOf(err error) (module, class string) {
	for _, k := range knownErrors {
		if errors.Is(err, k.err) {
			return k.module, k.class
		}
	}
	if _, ok := errors.AsType[*BindError](err); ok {
		return "builtins", "TypeError"
	}
	if _, ok := errors.AsType[*value.TypeError](err); ok {
		return "builtins", "TypeError"
	}
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return "builtins", "ValueError"
	}
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return "builtins", "ValueError"
	}
	if _, ok := errors.AsType[runtime.Error](err); ok {
		return "builtins", "RuntimeError"
	}
	return typeName(err)
}

// typeName names an error by its Go type. Wrappers that say nothing themselves are looked through.
func typeName(err error) (module, class string) {
	for ; err != nil; err = unwrapFirst(err) {
		if _, ok := err.(*expectedError); ok { //nolint:errorlint // this layer and no other
			continue
		}
		t := reflect.TypeOf(err)
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch t.PkgPath() {
		case "errors", "fmt", "":
			continue
		}
		return t.PkgPath(), t.Name()
	}
	return "builtins", "Exception"
}

// unwrapFirst returns the error inside err; of several, the first.
func unwrapFirst(err error) error {
	switch e := err.(type) { //nolint:errorlint // one layer at a time is the point
	case interface{ Unwrap() error }:
		return e.Unwrap()
	case interface{ Unwrap() []error }:
		if all := e.Unwrap(); len(all) > 0 {
			return all[0]
		}
	}
	return nil
}

// maxFrames bounds the frames of a traceback; the innermost ones are kept.
const maxFrames = 50

// Traceback is the text stored with a failed task, in the look of Python's, so that Flower, Sentry and people read it as
// they are used to. The stack is the text of debug.Stack taken where a panic was recovered; nil for an error that was
// returned: Go errors carry no stack. The errors that err wraps come before it, as Python shows the causes of an
// exception.
func Traceback(err error, stack []byte) string {
	if err == nil {
		return ""
	}
	var b strings.Builder
	causes := causesOf(err)
	for i := len(causes) - 1; i > 0; i-- {
		b.WriteString(lastLine(causes[i]))
		b.WriteString("\n\nThe above exception was the direct cause of the following exception:\n\n")
	}
	b.WriteString("Traceback (most recent call last):\n")
	frames := parseStack(stack)
	for i := len(frames) - 1; i >= 0; i-- {
		f := frames[i]
		b.WriteString(`  File "` + f.file + `", line ` + f.line + `, in ` + f.function + "\n")
	}
	b.WriteString(lastLine(causes[0]))
	b.WriteByte('\n')
	return b.String()
}

// causesOf lists err and what it wraps, outermost first. Wrappers with the text of what they wrap add nothing and are left
// out.
func causesOf(err error) []error {
	causes := []error{err}
	text := err.Error()
	for e := unwrapFirst(err); e != nil && len(causes) < maxFrames; e = unwrapFirst(e) {
		if t := e.Error(); t != text {
			causes = append(causes, e)
			text = t
		}
	}
	return causes
}

// lastLine is the line that names the exception: "ValueError: bad".
func lastLine(err error) string {
	x := ExceptionOf(err)
	name := qualified(x.Module, x.Type)
	if text := pythonStr(x); text != "" {
		return name + ": " + text
	}
	return name
}

type frame struct{ function, file, line string }

// parseStack reads the text of debug.Stack, innermost frame first. What lies inside of the panic (the recovering function
// and the runtime) is left out.
func parseStack(stack []byte) []frame {
	var frames []frame
	lines := strings.Split(string(stack), "\n")
	for i := 1; i+1 < len(lines); i += 2 {
		call, at := lines[i], lines[i+1]
		if !strings.HasPrefix(at, "\t") || strings.HasPrefix(call, "created by ") {
			break
		}
		if strings.HasPrefix(call, "panic(") {
			frames = frames[:0]
			continue
		}
		if len(frames) < maxFrames {
			frames = append(frames, readFrame(call, at))
		}
	}
	for len(frames) > 0 && strings.HasPrefix(frames[0].function, "runtime.") {
		frames = frames[1:] // a nil dereference or the like panics from within the runtime
	}
	return frames
}

// readFrame reads "pkg.Func(0x1, …)" and "\t/dir/file.go:12 +0x1d".
func readFrame(call, at string) frame {
	f := frame{function: call}
	// The arguments are the last parentheses; a receiver has some before: pkg.(*T).Method(...).
	if i := strings.LastIndexByte(call, '('); i > 0 {
		f.function = call[:i]
	}
	at = strings.TrimPrefix(at, "\t")
	if i := strings.LastIndex(at, " +0x"); i > 0 {
		at = at[:i]
	}
	f.file = at
	if i := strings.LastIndexByte(at, ':'); i > 0 {
		f.file, f.line = at[:i], at[i+1:]
	}
	if f.line == "" {
		f.line = "0"
	}
	return f
}
