package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
)

func TestPyError(t *testing.T) {
	t.Parallel()
	tests := []struct {
		module, class, target string
		want                  bool
	}{
		{"builtins", "ValueError", "ValueError", true},
		{"builtins", "ValueError", "Exception", true},
		{"builtins", "ValueError", "BaseException", true},
		{"builtins", "ValueError", "TypeError", false},
		{"builtins", "Exception", "ValueError", false},
		{"", "ValueError", "builtins.ValueError", true},
		{"builtins", "FileNotFoundError", "OSError", true},
		{"builtins", "FileNotFoundError", "Exception", true},
		{"builtins", "TimeoutError", "OSError", true},
		{"builtins", "KeyError", "LookupError", true},
		{"builtins", "ConnectionResetError", "ConnectionError", true},
		{"builtins", "ConnectionResetError", "OSError", true},
		{"builtins", "UnicodeDecodeError", "ValueError", true},
		{"builtins", "KeyboardInterrupt", "Exception", false},
		{"builtins", "KeyboardInterrupt", "BaseException", true},
		{"json.decoder", "JSONDecodeError", "ValueError", true},
		{"celery.exceptions", "NotRegistered", "KeyError", true},
		{"celery.exceptions", "NotRegistered", "celery.exceptions.CeleryError", true},
		{"celery.exceptions", "TimeoutError", "TimeoutError", false},
		{"shop.errors", "CardDeclined", "shop.errors.CardDeclined", true},
		{"shop.errors", "CardDeclined", "CardDeclined", false},
		{"shop.errors", "CardDeclined", "Exception", true},
		{"shop.errors", "ValueError", "ValueError", false},
	}
	for _, tt := range tests {
		err := fmt.Errorf("wrapped: %w", &Error{Module: tt.module, Type: tt.class})
		if got := errors.Is(err, PyError(tt.target)); got != tt.want {
			t.Errorf("%s.%s is a %s: %v", tt.module, tt.class, tt.target, got)
		}
	}
	if errors.Is(&Error{}, PyError("Exception")) {
		t.Error("an error without a class has one")
	}
	if errors.Is(&Error{Module: "builtins", Type: "ValueError"}, errors.New("x")) {
		t.Error("a Python error is a Go error")
	}
}

type customError struct{ code int }

func (e *customError) Error() string { return "code " + strconv.Itoa(e.code) }

func TestExceptionOf(t *testing.T) {
	t.Parallel()
	exc := func(module, class string, args ...any) *protocol.Exception {
		return &protocol.Exception{Type: class, Module: module, Args: args}
	}
	_, notExist := os.Open(filepath.Join(t.TempDir(), "none"))
	syntax := json.Unmarshal([]byte("{"), new(any))
	_, number := strconv.Atoi("x")
	var nilMap map[string]int
	panicked := func() (err error) {
		defer func() { err = recover().(error) }()
		nilMap["x"] = 1
		return nil
	}()
	bind := &BindError{Func: "add", Text: "missing"}
	remote := &Error{Type: "CardDeclined", Module: "shop.errors", Args: []any{int64(7)}, Message: "7"}
	tests := []struct {
		name string
		err  error
		want *protocol.Exception
	}{
		{"nil", nil, nil},
		{"plain", errors.New("boom"), exc("builtins", "Exception", "boom")},
		{"formatted", fmt.Errorf("a: %w", errors.New("b")), exc("builtins", "Exception", "a: b")},
		{"own type", &customError{5}, exc("github.com/gelery/gelery/task", "customError", "code 5")},
		{"own type, wrapped", fmt.Errorf("a: %w", &customError{5}), exc("github.com/gelery/gelery/task", "customError", "a: code 5")},
		{"own type, joined", errors.Join(&customError{5}, errors.New("b")), exc("github.com/gelery/gelery/task", "customError", "code 5\nb")},
		{"deadline", fmt.Errorf("a: %w", context.DeadlineExceeded), exc("builtins", "TimeoutError", "a: context deadline exceeded")},
		{"not exist", notExist, exc("builtins", "FileNotFoundError", notExist.Error())},
		{"permission", fs.ErrPermission, exc("builtins", "PermissionError", "permission denied")},
		{"refused", syscall.ECONNREFUSED, exc("builtins", "ConnectionRefusedError", "connection refused")},
		{"json", syntax, exc("builtins", "ValueError", "unexpected end of JSON input")},
		{"number", number, exc("builtins", "ValueError", number.Error())},
		{"panic", panicked, exc("builtins", "RuntimeError", "assignment to entry in nil map")},
		{"bind", bind, exc("builtins", "TypeError", "add() missing")},
		{"value", value.Assign(new(int), "x"), exc("builtins", "TypeError", `expected int, got str "x"`)},
		{"remote", fmt.Errorf("a: %w", remote), exc("shop.errors", "CardDeclined", int64(7))},
		{"exception", exc("m", "C", "x"), exc("m", "C", "x")},
		{"revoked", ErrRevoked, exc("celery.exceptions", "TaskRevokedError", "task revoked")},
		{"hard limit", &TimeLimitError{3 * time.Second}, exc("billiard.exceptions", "TimeLimitExceeded", int64(3))},
		{"soft limit", ErrSoftTimeLimit, exc("billiard.exceptions", "SoftTimeLimitExceeded", "soft time limit exceeded")},
		{"as python", AsPython(errors.New("no"), "shop.errors", "CardDeclined"), exc("shop.errors", "CardDeclined", "no")},
		{"as python with arguments", AsPython(errors.New("no"), "m", "C", 1, "x"), exc("m", "C", int64(1), "x")},
		{"as python, wrapped", fmt.Errorf("a: %w", AsPython(errors.New("no"), "m", "C")), exc("m", "C", "a: no")},
		{"as python, unsendable", AsPython(nil, "m", "C", struct{ C chan int }{}), exc("m", "C", "{<nil>}")},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, ExceptionOf(tt.err)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestAsPython(t *testing.T) {
	t.Parallel()
	sentinel := errors.New("declined")
	err := fmt.Errorf("charge: %w", AsPython(sentinel, "shop.errors", "CardDeclined"))
	if !errors.Is(err, sentinel) || !errors.Is(err, PyError("shop.errors.CardDeclined")) || errors.Is(err, PyError("ValueError")) {
		t.Errorf("%v lost its identity", err)
	}
	if text := AsPython(nil, "shop.errors", "CardDeclined", 7).Error(); text != "shop.errors.CardDeclined: 7" {
		t.Error(text)
	}
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	tests := []struct {
		meta protocol.ResultMeta
		want string
	}{
		{protocol.ResultMeta{Exception: &protocol.Exception{Type: "ValueError", Module: "builtins", Args: []any{"bad"}}}, "ValueError: bad"},
		{protocol.ResultMeta{Exception: &protocol.Exception{Type: "ValueError", Args: []any{"bad", int64(42)}}}, "ValueError: ('bad', 42)"},
		{protocol.ResultMeta{Exception: &protocol.Exception{Type: "KeyError", Module: "builtins", Args: []any{"k"}}}, "KeyError: 'k'"},
		{protocol.ResultMeta{Exception: &protocol.Exception{Type: "E", Module: "shop.errors", Args: []any{int64(1)}}}, "shop.errors.E: 1"},
		{protocol.ResultMeta{Exception: &protocol.Exception{Type: "E", Module: "shop.errors"}}, "shop.errors.E"},
		{protocol.ResultMeta{TaskID: "id", Status: protocol.Revoked}, "task id ended in state REVOKED"},
	}
	for _, tt := range tests {
		if got := newError(&tt.meta).Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	revoked := newError(&protocol.ResultMeta{Status: protocol.Revoked})
	if !errors.Is(revoked, ErrRevoked) || errors.Is(revoked, ErrTimeLimit) {
		t.Error("a revoked task is not ErrRevoked")
	}
	// What a Go worker stores, a Go client recognizes.
	for _, sentinel := range []error{ErrRevoked, ErrNotRegistered, ErrSoftTimeLimit, ErrTimeLimit, ErrWorkerLost} {
		back := newError(&protocol.ResultMeta{Status: protocol.Failure, Exception: ExceptionOf(sentinel)})
		if !errors.Is(back, sentinel) {
			t.Errorf("%v came back as %v", sentinel, back)
		}
	}
}

func explode(m map[string]int) { m["x"]++ }

// TestTraceback checks the look of Python's traceback, on a real panic.
func TestTraceback(t *testing.T) {
	t.Parallel()
	var text string
	func() {
		defer func() { text = Traceback(recover().(error), debug.Stack()) }()
		explode(nil)
	}()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	n := len(lines)
	if lines[0] != "Traceback (most recent call last):" || lines[n-1] != "RuntimeError: assignment to entry in nil map" {
		t.Errorf("first or last line is wrong:\n%s", text)
	}
	if n < 4 || !strings.Contains(lines[n-2], "errors_test.go\", line ") || !strings.HasSuffix(lines[n-2], "task.explode") {
		t.Errorf("the innermost frame is not last:\n%s", text)
	}
	for _, line := range lines[1 : n-1] {
		if !strings.HasPrefix(line, `  File "`) || strings.Contains(line, "runtime/") || strings.Contains(line, "debug.Stack") {
			t.Errorf("line %q", line)
		}
	}
}

func TestTracebackOfReturnedError(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("charge order 7: %w", &customError{5})
	want := `github.com/gelery/gelery/task.customError: code 5

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
github.com/gelery/gelery/task.customError: charge order 7: code 5
`
	if diff := cmp.Diff(want, Traceback(err, nil)); diff != "" {
		t.Error(diff)
	}
	if got := Traceback(ErrRevoked, nil); got != "Traceback (most recent call last):\ncelery.exceptions.TaskRevokedError: task revoked\n" {
		t.Errorf("got %q", got)
	}
	if got := Traceback(nil, nil); got != "" {
		t.Errorf("got %q", got)
	}
	for _, stack := range []string{"x", "x\ny", "x\ny\n\tz", "x\n(\n\t:"} { // nothing that looks like a stack may panic
		if got := Traceback(errors.New("e"), []byte(stack)); !strings.HasSuffix(got, "Exception: e\n") {
			t.Errorf("got %q", got)
		}
	}
}

func TestFlowControl(t *testing.T) {
	t.Parallel()
	why := errors.New("why")
	err := fmt.Errorf("a: %w", Reject(why, true))
	var r *RejectError
	if !errors.As(err, &r) || !r.Requeue || !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	if text := Reject(nil, false).Error(); text == "" {
		t.Error("no text")
	}
}
