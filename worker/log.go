package worker

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/transport"
)

// TaskLog is what a record of the worker says about a task, as one value among its attributes, under the empty key. The
// message says the same in Celery's words, which scripts look for; a handler that resolves the value, as those of slog
// do, finds attributes instead: task, task_id, and those of state, runtime, result, error, traceback and queue that are
// not empty.
type TaskLog struct {
	Task      string // as monitors show it: the shadow name if the call has one
	ID        string
	State     protocol.State
	Runtime   time.Duration // attribute: in seconds
	Result    string        // Python's repr, at most 1,024 bytes
	Error     string        // Python's repr of the exception
	Traceback string
	Queue     string
}

var _ slog.LogValuer = (*TaskLog)(nil)

// LogValue implements [slog.LogValuer].
func (l *TaskLog) LogValue() slog.Value {
	attrs := append(make([]slog.Attr, 0, 8), slog.String("task", l.Task), slog.String("task_id", l.ID))
	for _, a := range []struct{ key, text string }{{"state", string(l.State)}, {"queue", l.Queue}, {"result", l.Result},
		{"error", l.Error}, {"traceback", l.Traceback}} {
		if a.text != "" {
			attrs = append(attrs, slog.String(a.key, a.text))
		}
	}
	if l.Runtime > 0 {
		attrs = append(attrs, slog.Float64("runtime", l.Runtime.Seconds()))
	}
	return slog.GroupValue(attrs...)
}

// resultReprSize caps the result in a line, in bytes. Celery's resultrepr_maxsize.
const resultReprSize = 1024

// shownName is the name of a task for those who watch: Celery's shadow.
func shownName(r *protocol.Request) string {
	if r.Shadow != "" {
		return r.Shadow
	}
	return r.Task
}

// fullName is a task in Celery's lines: name[id].
func fullName(r *protocol.Request) string { return shownName(r) + "[" + r.ID + "]" }

// logs tells whether a line of the level goes anywhere. What a line says is made only then.
func (w *Worker) logs(level slog.Level) bool { return w.log.Enabled(context.Background(), level) }

// logTask writes a line about a task.
func (w *Worker) logTask(level slog.Level, text string, r *protocol.Request, l TaskLog) {
	l.Task, l.ID = shownName(r), r.ID
	w.log.LogAttrs(context.Background(), level, text, slog.Any("", &l))
}

// logReceived tells that a task has come.
func (w *Worker) logReceived(j *job) {
	if w.logs(slog.LevelInfo) {
		w.logTask(slog.LevelInfo, "Task "+fullName(j.request)+" received", j.request, TaskLog{Queue: j.delivery.Queue})
	}
}

// logDiscarded tells that a task ends without a run: revoked, or expired, for which Celery has the same words.
// By is the stamp by which it was revoked, if it was by one.
func (w *Worker) logDiscarded(j *job, why, by string) {
	if w.logs(slog.LevelInfo) {
		text := "Discarding revoked task: " + fullName(j.request)
		if by != "" {
			text += " (revoked by header: " + by + ")"
		}
		w.logTask(slog.LevelInfo, text, j.request, TaskLog{State: protocol.Revoked, Error: why})
	}
}

// logSucceededBefore tells that a task does not run again.
func (w *Worker) logSucceededBefore(j *job) {
	if w.logs(slog.LevelInfo) {
		text := "Task " + fullName(j.request) + " Task already completed successfully."
		w.logTask(slog.LevelInfo, text, j.request, TaskLog{State: protocol.Success})
	}
}

// logRefused tells of a message that goes to quarantine, in Celery's words for what is wrong with it.
func (w *Worker) logRefused(d *transport.Delivery, r *protocol.Request, x *protocol.Exception, reason string) {
	text := "Received invalid task message: " + reason + ". Its message is quarantined"
	switch x.Type {
	case "NotRegistered":
		text = "Received unregistered task of type " + value.Repr(r.Task, resultReprSize) + ". Its message is quarantined"
	case "DecodeError", "ContentDisallowed":
		text = "Can't decode message body: " + reason + ". The message is quarantined"
	}
	w.log.Error(text, "queue", d.Queue, "task_id", r.ID)
}

// logOutcome tells how a run ended.
func (w *Worker) logOutcome(e *execution, c completion) {
	level := slog.LevelInfo
	switch {
	case c.state == protocol.Failure && !c.expected:
		level = slog.LevelError
	case c.state == protocol.Rejected:
		level = slog.LevelWarn
	}
	if !w.logs(level) {
		return
	}
	l := TaskLog{State: c.state, Runtime: time.Since(e.begun)}
	var how string
	switch c.state {
	case protocol.Success:
		secrets := w.secrets(e.task)
		l.Result = secrets.Repr(c.result, resultReprSize)
		how = "succeeded in " + strconv.FormatFloat(l.Runtime.Seconds(), 'f', -1, 64) + "s: " + l.Result
	case protocol.Failure:
		l.Error = exceptionRepr(c.exception, w.secrets(e.task))
		if c.expected {
			how = "raised expected: " + l.Error
			break
		}
		l.Traceback, how = c.traceback, "raised unexpected: "+l.Error
	case protocol.Retry:
		how = "retry: " + c.why
	case protocol.Ignored:
		how = "ignored"
	case protocol.Rejected:
		how = "reject requeue=" + value.Repr(c.requeue, 0) + ": " + c.why
	default:
		how = "ended " + string(c.state)
		if c.exception != nil {
			l.Error = exceptionRepr(c.exception, w.secrets(e.task))
			how += ": " + l.Error
		}
	}
	w.logTask(level, "Task "+fullName(e.request)+" "+how, e.request, l)
}

// logLimit tells that a run has passed a time limit: "Soft" or "Hard".
func (w *Worker) logLimit(level slog.Level, which string, e *execution, limit time.Duration) {
	if w.logs(level) {
		text := fmt.Sprintf("%s time limit (%vs) exceeded for %s", which, limit.Seconds(), fullName(e.request))
		w.logTask(level, text, e.request, TaskLog{})
	}
}
