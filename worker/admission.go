package worker

import (
	"context"
	"errors"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

// admit decides what a delivery is: a task to run now or later, or one that ends here. Nothing a message holds may
// stop the worker; what cannot be run is put in quarantine, with a FAILURE for whoever waits where it has an id.
//
// Rate limits are asked once a task is due.
func (w *Worker) admit(ctx context.Context, d *transport.Delivery) {
	if d.Err != nil {
		r := &protocol.Request{}
		if d.Message != nil { // what could be read of it may name who waits
			r, _ = protocol.DecodeRequest(d.Message, w.accept)
		}
		w.refuse(d, r, &protocol.Exception{Type: "DecodeError", Module: "kombu.exceptions", Args: []any{d.Err.Error()}}, d.Err.Error())
		return
	}
	r, err := protocol.DecodeRequest(d.Message, w.accept)
	if err != nil {
		w.refuse(d, r, refusalException(err), err.Error())
		return
	}
	definition := w.tasks[r.Task]
	if definition == nil {
		w.unknown(d, r)
		return
	}
	j := &job{delivery: d, request: r, task: definition}
	w.logReceived(j)
	if w.discarded(j) {
		return
	}
	w.tellReceived(j)
	w.events.tellReceived(j)
	w.metrics.received(j)
	if eta, ok := r.ETATime(); ok && time.Until(eta) > 0 {
		w.postpone(j, eta)
		return
	}
	w.due(ctx, j)
}

// discarded ends a job that must not run any more, as Celery does: REVOKED with "expired" or "revoked", acknowledged. It is
// asked when a message is admitted and again right before it runs.
func (w *Worker) discarded(j *job) bool {
	why, by := "expired", ""
	if !expired(j) {
		stamp, yes := w.revoked.holds(j.request)
		if !yes {
			return false
		}
		if why = "revoked"; stamp != "" {
			by = stampText(stamp)
		}
	}
	w.logDiscarded(j, why, by)
	w.tellRevoked(j, why)
	o := &outcome{delivery: j.delivery, request: j.request, state: protocol.Revoked, events: w.events.ofRevocation(j.request, why),
		counts: countedAs{kind: countedRevoked}}
	x := revokedException(why)
	w.carryOn(o, &completion{state: protocol.Revoked, exception: x})
	if w.storesError(j) {
		o.meta = w.meta(j, protocol.Revoked, x, "")
	}
	w.report(o)
	return true
}

// revokedException says why a task was revoked: "expired", "revoked" or "terminated".
func revokedException(why string) *protocol.Exception {
	return &protocol.Exception{Type: "TaskRevokedError", Module: "celery.exceptions", Args: []any{why}}
}

// due takes a job whose time has come: what must wait for more than a slot waits here.
func (w *Worker) due(ctx context.Context, j *job) {
	if j.task == nil {
		w.handBack(j)
		return
	}
	if r := w.rooms.of(j); r != nil {
		r.enter(ctx, j)
		return
	}
	w.enqueue(ctx, j)
}

// postpone keeps a job until its time: in the broker if it can, else here.
func (w *Worker) postpone(j *job, eta time.Time) {
	if w.delaying.take(j, eta) {
		w.events.delayed(j)
	} else {
		w.parking.park(j, eta)
	}
}

// enqueue hands a job to the pool. When the worker stops, the job stays held and goes back to its queue.
func (w *Worker) enqueue(ctx context.Context, j *job) {
	if w.autoscaler != nil {
		w.autoscaler.jobComes()
	}
	w.reserved.add(j)
	select {
	case w.ready <- j:
	case <-ctx.Done():
		w.reserved.remove(j)
		w.unbegun.add(j)
	}
}

// expired tells whether a job's expires has passed.
func expired(j *job) bool {
	expires, ok := j.request.ExpiresTime()
	return ok && !time.Now().Before(expires)
}

// refuse sends a delivery to quarantine.
func (w *Worker) refuse(d *transport.Delivery, r *protocol.Request, x *protocol.Exception, reason string) {
	w.logRefused(d, r, x, reason)
	w.tellQuarantined(d, r, x, reason)
	w.quarantined.Add(1)
	o := &outcome{delivery: d, request: r, verdict: transport.Quarantine, reason: reason, meta: w.refusal(r, x),
		events: w.events.ofRefusal(r, x), counts: failureCount(x)}
	w.carryOn(o, &completion{state: protocol.Failure, exception: x})
	if r.HidesChord() { // who counts another part last fails the chord
		o.addPart(r.Group, r.GroupIndex, nil, &protocol.ResultMeta{TaskID: r.ID, Status: protocol.Failure, Exception: x})
	}
	w.report(o)
}

// refusal is the FAILURE for whoever waits for a message that cannot be run; nil: there is nobody.
func (w *Worker) refusal(r *protocol.Request, x *protocol.Exception) *protocol.ResultMeta {
	if r.ID == "" || r.IgnoreResult != nil && *r.IgnoreResult && !w.config.StoreErrorsEvenIfIgnored {
		return nil
	}
	return &protocol.ResultMeta{TaskID: r.ID, Status: protocol.Failure, Exception: x, DateDone: time.Now(),
		GroupID: r.Group, ParentID: r.ParentID, ReplyTo: r.Properties.ReplyTo, CorrelationID: r.Properties.CorrelationID}
}

// refusalException is what a client that waits for an unreadable task sees, under the names Python knows.
func refusalException(err error) *protocol.Exception {
	x := &protocol.Exception{Type: "InvalidTaskError", Module: "celery.exceptions", Args: []any{err.Error()}}
	var disallowed *serialization.ContentDisallowed
	if e, ok := errors.AsType[*protocol.RequestError](err); ok {
		switch {
		case errors.As(err, &disallowed):
			return &protocol.Exception{Type: "ContentDisallowed", Module: "kombu.exceptions", Args: []any{disallowed.Error()}}
		case e.Kind == protocol.Undecodable:
			return &protocol.Exception{Type: "DecodeError", Module: "kombu.exceptions", Args: []any{e.Err.Error()}}
		}
	}
	return x
}

// ignoresResult tells whether a task's result is thrown away: the message decides, else the task's definition, else
// the configuration (Celery 5.6.3; before, a task declared so won over the message).
func (w *Worker) ignoresResult(j *job) bool {
	if w.backend == nil {
		return true
	}
	if j.request.IgnoreResult != nil {
		return *j.request.IgnoreResult
	}
	if ignore := j.task.Defaults.IgnoreResult; ignore != nil {
		return *ignore
	}
	return w.client.Config().IgnoreResult
}

// storesError tells whether an exception is stored for a job that ends without a run.
func (w *Worker) storesError(j *job) bool {
	return w.config.StoreErrorsEvenIfIgnored || !w.ignoresResult(j)
}

// meta is the result document of a job in some state.
func (w *Worker) meta(j *job, state protocol.State, x *protocol.Exception, traceback string) *protocol.ResultMeta {
	r := j.request
	m := &protocol.ResultMeta{TaskID: r.ID, Status: state, Exception: x, Traceback: traceback, GroupID: r.Group, ParentID: r.ParentID,
		ReplyTo: r.Properties.ReplyTo, CorrelationID: r.Properties.CorrelationID}
	if state.Ready() {
		m.DateDone = time.Now()
	}
	if w.config.ResultExtended {
		m.Extended = &protocol.ExtendedMeta{Name: r.Task, Args: r.Args, Kwargs: r.Kwargs, Worker: w.config.Hostname,
			Retries: r.Retries, Queue: j.delivery.Queue, StampedHeaders: r.StampedHeaders, Stamps: r.StampValues()}
	}
	return m
}
