package worker

import (
	"time"

	"github.com/gelery/gelery/protocol"
)

const (
	// maxListed bounds the tasks that one reply lists.
	maxListed = 10_000
	// maxArguments bounds what the arguments in one reply take, in bytes. Beyond it tasks are shown without theirs: RabbitMQ
	// takes no message above 16 MiB.
	maxArguments = 4 << 20
	// maxRead bounds what is read again of messages for one reply, in bytes.
	maxRead = 64 << 20
	// longestText is how much of the texts of one task's arguments is shown.
	longestText = 64 << 10
)

// taskInfos describes tasks for one reply of remote control.
type taskInfos struct {
	w      *Worker
	safe   bool // arguments are shown as Python's repr
	left   int  // bytes that arguments may still take
	unread int  // bytes that may still be read of messages
}

func (w *Worker) taskInfos(safe bool) *taskInfos {
	return &taskInfos{w: w, safe: safe, left: maxArguments, unread: maxRead}
}

// of describes a job that does not run: Celery's Request.info.
func (t *taskInfos) of(j *job) map[string]any {
	r := j.request
	name := r.Task
	if r.Shadow != "" {
		name = r.Shadow
	}
	args, kwargs := t.arguments(j)
	d := &r.Properties.DeliveryInfo
	return map[string]any{"id": r.ID, "name": name, "type": r.Task, "args": args, "kwargs": kwargs, "hostname": t.w.config.Hostname,
		"time_start": nil, "acknowledged": false, "worker_pid": nil,
		"delivery_info": map[string]any{"exchange": d.Exchange, "routing_key": d.RoutingKey, "priority": int64(r.Properties.Priority),
			"redelivered": j.delivery.Redelivered}}
}

// running describes a job that has its slot.
func (t *taskInfos) running(e *execution) map[string]any {
	info := t.of(e.job)
	info["acknowledged"] = t.w.acksEarly(e.job)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pid != 0 {
		info["time_start"], info["worker_pid"] = unixSeconds(e.begun), int64(e.pid)
	}
	return info
}

// arguments are a job's, read from its message: those of the request belong to the task's code, which may change them. What
// cannot be shown as values is shown as text.
func (t *taskInfos) arguments(j *job) (args, kwargs any) {
	size := len(j.delivery.Message.Body)
	if t.unread -= size; t.unread < 0 {
		return t.text("..."), t.text("...")
	}
	again, err := protocol.DecodeRequest(j.delivery.Message, t.w.accept)
	if err != nil { // it was read once
		return t.text("..."), t.text("...")
	}
	if size > t.left || t.safe && again.ArgsRepr != "" {
		argsText, kwargsText := t.w.reprs(j.task, again)
		return t.text(argsText), t.text(kwargsText)
	}
	secrets := t.w.secrets(j.task)
	if t.safe || again.Compression != "" { // so little may be very much
		argsText, kwargsText := secrets.ReprTuple(again.Args, t.left), secrets.Repr(again.Kwargs, t.left)
		if size = len(argsText) + len(kwargsText); t.safe || size > t.left {
			return t.text(argsText), t.text(kwargsText)
		}
	}
	t.left -= size
	again.Args, again.Kwargs = secrets.Redact(again.Args, again.Kwargs)
	if again.Args == nil {
		again.Args = []any{}
	}
	return again.Args, again.Kwargs
}

// text cuts a text to what there is room for.
func (t *taskInfos) text(s string) string {
	if most := min(longestText, t.left); len(s) > most {
		s = s[:max(0, most)] + "..."
	}
	t.left -= len(s)
	return s
}

// unixSeconds is a time as Python's time.time().
func unixSeconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }
