package task

import (
	"errors"
	"fmt"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
)

var (
	// ErrNoBroker is returned by Dial for a config without a Broker, and by whoever sends with a client without a
	// transport.
	ErrNoBroker = errors.New("no broker is configured")
	// ErrNoBackend is returned by whoever wants a result where no result backend is configured.
	ErrNoBackend = errors.New("no result backend is configured")
	// ErrResultIgnored is returned by Get for a call sent with IgnoreResult: it would wait for ever.
	ErrResultIgnored = errors.New("the call was sent with its result ignored")
	// ErrUnknownQueue is returned by Send for a queue not in Config.Queues when CreateMissingQueues is false.
	ErrUnknownQueue = errors.New("queue is not configured")

	// ErrRevoked is the error of a task that was revoked or had expired. Python: celery.exceptions.TaskRevokedError.
	ErrRevoked = errors.New("task revoked")
	// ErrNotRegistered means that the worker knows no task of the name. Python: celery.exceptions.NotRegistered.
	ErrNotRegistered = errors.New("task is not registered")
	// ErrSoftTimeLimit is the error of a task that ended because its soft time limit had passed. Python:
	// billiard.exceptions.SoftTimeLimitExceeded.
	ErrSoftTimeLimit = errors.New("soft time limit exceeded")
	// ErrTimeLimit is the error of a task given up at its hard time limit. Python:
	// billiard.exceptions.TimeLimitExceeded.
	ErrTimeLimit = errors.New("time limit exceeded")
	// ErrWorkerLost is the error of a task whose worker process died under it. Python:
	// billiard.exceptions.WorkerLostError.
	ErrWorkerLost = errors.New("worker process lost")
)

// Ignore ends the task that returns it without storing anything: Celery's Ignore. The message is acknowledged.
var Ignore error = errors.New("ignore this task's outcome")

// RejectError is what [Reject] returns.
type RejectError struct {
	Err     error // why; may be nil
	Requeue bool
}

func (e *RejectError) Error() string {
	if e.Err == nil {
		return "task rejected its message"
	}
	return "task rejected its message: " + e.Err.Error()
}

func (e *RejectError) Unwrap() error { return e.Err }

// Reject refuses the message of the task that returns it: Celery's Reject. With requeue the message goes back to its
// queue, without it the broker drops or dead-letters it. Nothing is stored. The worker finds it with errors.As, so it may
// be wrapped.
func Reject(reason error, requeue bool) error { return &RejectError{Err: reason, Requeue: requeue} }

// TimeLimitError is the error of a run that was given up at its hard limit; errors.Is(err, ErrTimeLimit) holds.
type TimeLimitError struct{ Limit time.Duration }

func (e *TimeLimitError) Error() string { return fmt.Sprintf("time limit of %v exceeded", e.Limit) }

// Is makes it an [ErrTimeLimit].
func (e *TimeLimitError) Is(target error) bool {
	return target == ErrTimeLimit || isPyError(target, "billiard.exceptions", "TimeLimitExceeded")
}

// Error is the exception with which a task ended, as the result backend holds it: raised by a Python worker, or made of
// the error of a Go one.
//
//	var e *task.Error
//	if errors.As(err, &e) { log.Print(e.Type, e.Args, e.Traceback) }
//	if errors.Is(err, task.PyError("ValueError")) { … }
type Error struct {
	Type      string // class name, e.g. "ValueError"
	Module    string // e.g. "builtins", "shop.errors"; for Go errors the import path
	Args      []any  // the exception's arguments, canonical values
	Message   string // what Python's str() of it gives
	Traceback string // text, empty if none was stored
	TaskID    string
	State     protocol.State // FAILURE or REVOKED; from Info also RETRY
}

func (e *Error) Error() string {
	name := qualified(e.Module, e.Type)
	switch {
	case name == "" && e.Message == "":
		return "task " + e.TaskID + " ended in state " + string(e.State)
	case e.Message == "":
		return name
	}
	return name + ": " + e.Message
}

// Is matches [PyError] classes and their subclasses, and the sentinels of this package.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrRevoked:
		return e.State == protocol.Revoked || e.Type == "TaskRevokedError"
	case ErrNotRegistered:
		return e.Type == "NotRegistered"
	case ErrSoftTimeLimit:
		return e.Type == "SoftTimeLimitExceeded"
	case ErrTimeLimit:
		return e.Type == "TimeLimitExceeded"
	case ErrWorkerLost:
		return e.Type == "WorkerLostError"
	}
	return isPyError(target, e.Module, e.Type)
}

// qualified is the class name as Python prints it in a traceback.
func qualified(module, class string) string {
	if module == "" || module == "builtins" {
		return class
	}
	return module + "." + class
}

// pythonStr is what str() of the exception gives in Python.
func pythonStr(x *protocol.Exception) string {
	if len(x.Args) != 1 {
		if len(x.Args) == 0 {
			return ""
		}
		return value.ReprTuple(x.Args, reprSize)
	}
	// KeyError alone shows the repr of its key, so that an empty one can be seen.
	if s, ok := x.Args[0].(string); ok && x.Type != "KeyError" {
		return s
	}
	return value.Repr(x.Args[0], reprSize)
}
