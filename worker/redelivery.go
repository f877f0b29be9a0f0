package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// resumes is asked right before the run of a job whose message was handed out before: by a worker that has gone since, or
// that gave it back. False: the job is not to be run, and has been taken care of.
func (w *Worker) resumes(ctx context.Context, j *job) bool {
	if w.acksEarly(j) {
		return true // it would be acknowledged if work on it had begun
	}
	if w.succeededBefore(ctx, j) {
		return false
	}
	if ctx.Err() != nil { // whether it has succeeded may not be known for that
		w.leave(j)
		return false
	}
	return w.begin(ctx, j)
}

// begin counts that work on the message begins once more, before it does: what ends its worker cannot count itself
// afterwards. A message that has begun too often is put aside.
func (w *Worker) begin(ctx context.Context, j *job) bool {
	most := w.config.MaxDeliveries
	if own := j.task.Defaults.MaxDeliveries; own != 0 {
		most = own
	}
	if most < 0 {
		return true
	}
	if n := j.request.Attempts(); n >= most {
		w.overdelivered(j, n)
		return false
	}
	err := w.consumer.Begin(ctx, j.delivery)
	switch {
	case errors.Is(err, transport.ErrTakenBack):
		w.log.Warn("task not begun: its message was taken back", "task", j.request.Task, "task_id", j.request.ID)
		w.window.free(1)
		return false
	case ctx.Err() != nil:
		w.leave(j)
		return false
	case errors.Is(err, errors.ErrUnsupported):
		return true
	case err == nil:
		n := j.delivery.Message.Headers.Attempts()
		if n > most { // the broker counts beside the message
			w.overdelivered(j, n-1)
		}
		return n <= most
	}
	w.log.Warn("a message that comes again runs without being counted", "task", j.request.Task, "task_id", j.request.ID, "error", err)
	return true
}

// overdelivered ends a job whose message has begun too often: the message is quarantined, with its history, and its task
// has failed like one whose worker was lost.
func (w *Worker) overdelivered(j *job, begun int) {
	reason := fmt.Sprintf("work on it has begun %d times after it had been handed out before, and has not ended: MaxDeliveries is reached",
		begun)
	x := &protocol.Exception{Type: "WorkerLostError", Module: "billiard.exceptions", Args: []any{"message given up: " + reason}}
	o := &outcome{delivery: j.delivery, request: j.request, state: protocol.Failure, verdict: transport.Quarantine, reason: reason,
		events: w.events.ofRefusal(j.request, x), counts: failureCount(x)}
	w.carryOn(o, &completion{state: protocol.Failure, exception: x})
	if w.storesError(j) {
		o.meta = w.meta(j, protocol.Failure, x, "")
	}
	w.log.Error("message quarantined: "+reason, "task", j.request.Task, "task_id", j.request.ID, "queue", j.delivery.Queue)
	w.tellQuarantined(j.delivery, j.request, x, reason)
	w.quarantined.Add(1)
	w.report(o)
}

// succeededBefore ends a job whose SUCCESS is stored already, if the worker is to look, or a workflow goes on after it. What follows the task was sent
// before its message could be acknowledged, or not, if its worker was lost in between: so its workflow goes on from the
// stored result, as in Celery from 5.6.3 on. What was sent already comes once more, under the same ids.
func (w *Worker) succeededBefore(ctx context.Context, j *job) bool {
	// What follows a task must fit the result that is stored, which a second run may not give again.
	if !w.config.Deduplicate && !follows(&j.request.Embed) || w.ignoresResult(j) || !keeps(w.backend) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, settleGrace)
	defer cancel()
	meta, err := w.backend.Get(ctx, j.request.ID)
	switch {
	case err != nil:
		w.log.Warn("whether a task has succeeded before is not known", "task", j.request.Task, "task_id", j.request.ID, "error", err)
		return false
	case meta.Status != protocol.Success:
		return false
	}
	w.logSucceededBefore(j)
	o := &outcome{delivery: j.delivery, request: j.request, state: protocol.Success, events: w.events.ofSuccess(j, meta.Result, 0),
		counts: countedAs{kind: countedSucceeded}}
	w.carryOn(o, &completion{state: protocol.Success, result: meta.Result})
	w.report(o)
	return true
}

// keeps tells whether results can be looked up there.
func keeps(b backends.Backend) bool {
	_, sends := b.(backends.Replier)
	return b != nil && !sends
}

// checkBackend refuses settings that need a backend of another kind.
func (c *Config) checkBackend(keeps bool) error {
	if c.Deduplicate && !keeps {
		return errors.New("worker config: Deduplicate: it needs a result backend that keeps results; there is none, or rpc://, which sends them")
	}
	return nil
}
