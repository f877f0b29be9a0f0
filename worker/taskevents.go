package worker

import (
	"strconv"
	"sync"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/transport"
)

// The texts in events of tasks that the message does not have are Python's repr, of so many bytes at most. Celery's
// resultrepr_maxsize and argsrepr_maxsize.
const eventReprSize = 1024

// tellReceived tells that a task has come. What comes back because the broker has delayed it was told of before.
func (e *events) tellReceived(j *job) {
	if !e.tasks.Load() || e.received.before(j.request) {
		return
	}
	r := j.request
	args, kwargs := e.w.reprs(j.task, r)
	e.tellTask(protocol.TaskReceived, func(m protocol.EventMembers) protocol.EventMembers {
		return m.Text("uuid", r.ID).Text("name", cut(shownName(r))).Text("args", cut(args)).Text("kwargs", cut(kwargs)).
			OptionalText("root_id", r.RootID).OptionalText("parent_id", r.ParentID).Int("retries", int64(r.Retries)).
			OptionalText("eta", isoText(r.ETATime())).OptionalText("expires", isoText(r.ExpiresTime()))
	})
}

// tellStarted tells that a run begins.
func (e *events) tellStarted(r *protocol.Request) {
	if e.tasks.Load() {
		e.tellTask(protocol.TaskStarted, func(m protocol.EventMembers) protocol.EventMembers { return m.Text("uuid", r.ID) })
	}
}

// ofRun are the events of a run that has ended, to be told when its outcome is stored; nil: nobody wants them.
func (e *events) ofRun(o *outcome, x *execution, c *completion) []event {
	if !e.tasks.Load() {
		return nil
	}
	r := x.request
	switch c.state {
	case protocol.Success:
		return e.ofSuccess(x.job, c.result, c.runtime)
	case protocol.Retry:
		return []event{{kind: protocol.TaskRetried, members: ofTask(r, len(c.traceback)).Text("exception", exceptionRepr(c.exception, e.w.secrets(x.task))).Text("traceback", cut(c.traceback))}}
	case protocol.Failure:
		failed := event{kind: protocol.TaskFailed, members: ofTask(r, len(c.traceback)).Text("exception", exceptionRepr(c.exception, e.w.secrets(x.task))).
			OptionalText("traceback", cut(c.traceback))}
		if o.verdict == transport.Reject && !o.settled {
			return []event{rejectedEvent(r, false), failed}
		}
		return []event{failed}
	case protocol.Rejected:
		if !o.settled {
			return []event{rejectedEvent(r, c.requeue)}
		}
	case protocol.Revoked:
		return []event{revokedEvent(r, c.signal, false)}
	}
	return nil
}

// ofSuccess are the events of a task that has succeeded, now or, if its message has come again, before.
func (e *events) ofSuccess(j *job, result any, runtime time.Duration) []event {
	if !e.tasks.Load() {
		return nil
	}
	return []event{{kind: protocol.TaskSucceeded, success: success{j.request.ID, j.task, result, runtime}}}
}

// success is what the event of a task that has succeeded is written from, when it is told: most events are such.
type success struct {
	id      string
	task    *registered
	result  any // canonical
	runtime time.Duration
}

// tellSuccess tells of a task that has succeeded.
func (e *events) tellSuccess(s success) {
	text := "None" // as of most tasks
	if s.result != nil {
		secrets := e.w.secrets(s.task)
		text = secrets.Repr(s.result, eventReprSize)
	}
	e.tellTask(protocol.TaskSucceeded, func(m protocol.EventMembers) protocol.EventMembers {
		return m.Text("uuid", s.id).Text("result", text).Float("runtime", s.runtime.Seconds())
	})
}

// ofRefusal are the events of a message that is not run; nil: there are none.
func (e *events) ofRefusal(r *protocol.Request, x *protocol.Exception) []event {
	if !e.tasks.Load() || r.ID == "" {
		return nil
	}
	return []event{{kind: protocol.TaskFailed, members: ofTask(r, 0).Text("exception", exceptionRepr(x, e.w.client.Secrets()))}}
}

// ofRevocation are the events of a task that is discarded before its run: it is "expired" or "revoked".
func (e *events) ofRevocation(r *protocol.Request, why string) []event {
	if !e.tasks.Load() {
		return nil
	}
	return []event{revokedEvent(r, 0, why == "expired")}
}

// ofTask begins the fields of an event of a task, with room for so many bytes more than usual.
func ofTask(r *protocol.Request, more int) protocol.EventMembers {
	return make(protocol.EventMembers, 0, 160+more).Text("uuid", r.ID)
}

func rejectedEvent(r *protocol.Request, requeue bool) event {
	return event{kind: protocol.TaskRejected, members: ofTask(r, 0).Bool("requeue", requeue)}
}

// revokedEvent tells of a task that was terminated with a signal; 0: it was discarded.
func revokedEvent(r *protocol.Request, signal int8, expired bool) event {
	m := ofTask(r, 0).Bool("terminated", signal != 0)
	if signal == 0 {
		m = m.OptionalText("signum", "")
	} else {
		m = m.Int("signum", int64(signal))
	}
	return event{kind: protocol.TaskRevoked, members: m.Bool("expired", expired)}
}

// tellOutcomes tells of outcomes that are stored.
func (e *events) tellOutcomes(batch []*outcome) {
	for _, o := range batch {
		if len(o.events) == 0 {
			continue
		}
		if m := o.meta; m != nil && m.Status == protocol.Failure && o.state == protocol.Success { // it could not be stored as it was
			o.events = e.ofRefusal(o.request, m.Exception)
		}
		e.tellTasks(o.events...)
		o.events = nil
	}
}

// exceptionRepr is Python's repr of an exception, without secrets: None if there is none.
func exceptionRepr(x *protocol.Exception, secrets value.Secrets) string {
	if x == nil {
		return "None"
	}
	return cut(x.Repr(&secrets))
}

// cut shortens a text that is too long for an event.
func cut(s string) string {
	if len(s) <= maxEventText {
		return s
	}
	return s[:maxEventText] + "..."
}

// isoText is a time as Python's isoformat writes it; "" for none.
func isoText(t time.Time, given bool) string {
	if !given {
		return ""
	}
	return value.FormatISO(t)
}

const (
	// maxReceivedBefore and receivedBeforeExpires bound what is kept of the tasks that wait in the broker.
	maxReceivedBefore     = 10_000
	receivedBeforeExpires = 24 * time.Hour * 7
)

// receivedBefore are the tasks that were told as received and then given to the broker until their time: Celery holds them,
// and tells of each once.
type receivedBefore struct {
	mu   sync.Mutex
	keys *limitedSet
}

// delayed notes a job that the broker keeps until its time, or may do so, for events and metrics.
func (e *events) delayed(j *job) {
	if e.tasks.Load() || e.w.metrics != nil {
		e.received.add(j.request)
	}
}

func receivedKey(r *protocol.Request) string { return r.ID + " " + strconv.Itoa(r.Retries) }

// add notes a task that the broker keeps.
func (b *receivedBefore) add(r *protocol.Request) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys.add(receivedKey(r), now, now)
}

func (b *receivedBefore) before(r *protocol.Request) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keys.len() > 0 && b.keys.has(receivedKey(r), time.Now())
}
