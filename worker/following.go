package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// followPatience is how long a batch of outcomes waits for what follows some of its tasks to be sent. What takes longer,
// because its queue takes nothing, goes on by itself and is settled when it is sent.
const followPatience = 250 * time.Millisecond

// sendFollowing sends what follows the tasks of a batch, each for itself, so that what cannot be sent harms no other, and
// returns what can be settled. The rest is handed on later, by goroutines that are counted in w.followers, and up to
// maxParked of it does not count in the window meanwhile: a queue that takes nothing stops no worker.
func (w *Worker) sendFollowing(batch []*outcome, next chan<- []*outcome) (settle []*outcome) {
	if !slices.ContainsFunc(batch, func(o *outcome) bool { return o.goesOn() }) {
		return batch
	}
	settle = make([]*outcome, 0, len(batch))
	waiting := make(map[*outcome]bool) // whether it is counted in the window
	type sending struct {
		*outcome
		done bool
	}
	sent := make(chan sending, len(batch))
	for _, o := range batch {
		if !o.goesOn() {
			settle = append(settle, o)
			continue
		}
		waiting[o] = true
		w.followers.Go(func() { sent <- sending{o, w.follow(o)} })
	}
	patience := time.NewTimer(followPatience)
	defer patience.Stop()
	for len(waiting) > 0 {
		select {
		case x := <-sent:
			delete(waiting, x.outcome)
			if x.done {
				settle = append(settle, x.outcome)
			}
			continue
		case <-patience.C:
		}
		for o := range waiting {
			waiting[o] = !w.letOut(o)
		}
		w.followers.Go(func() {
			for range len(waiting) {
				x := <-sent
				if !waiting[x.outcome] {
					w.late.Add(-1)
					w.window.take(1)
				}
				if x.done {
					select {
					case next <- []*outcome{x.outcome}:
					case <-w.applying.Done():
					}
				}
			}
		})
		break
	}
	return settle
}

// letOut stops counting in the window an outcome that waits for what follows it. False: there are too many of them.
func (w *Worker) letOut(o *outcome) bool {
	if w.late.Add(1) > maxParked {
		w.late.Add(-1)
		return false
	}
	if o.settled {
		w.window.free(1)
	} else {
		w.outside(o.delivery)
	}
	return true
}

// follow sends what follows one task, and goes on trying until it is sent, or cannot be, or a cold stop ends it (false).
func (w *Worker) follow(o *outcome) bool {
	if o.run != nil && o.state != protocol.Retry {
		o.run.info.Passed(o.following)
	}
	for {
		o.recount()
		err := w.announceChords(o)
		if err == nil && len(o.following) > 0 {
			err = w.client.Forward(w.applying, o.following)
		} else if err != nil {
			err = fmt.Errorf("%w: %w", errAnnouncing, err)
		}
		switch {
		case err == nil:
			w.endChords(o)
			return true
		case w.applying.Err() != nil:
			w.forsake(o)
			return false
		case !passing(err):
			return w.unsendable(o, err)
		}
		w.log.Error("what follows a task is not sent, trying again", "task", o.request.Task, "task_id", o.request.ID, "error", err)
		select {
		case <-time.After(storePause):
		case <-w.applying.Done():
			w.forsake(o)
			return false
		}
	}
}

// errAnnouncing is in an error of the result backend, which takes no chord now.
var errAnnouncing = errors.New("chord is not announced")

// goesOn tells whether there is something to do between the storing of an outcome and its settling.
func (o *outcome) goesOn() bool { return len(o.following) > 0 || len(o.ended) > 0 }

// recount makes the delays of what follows fit its eta, which has come nearer while it waited.
func (o *outcome) recount() {
	for i := range o.following {
		p := &o.following[i]
		if p.Delay == 0 {
			continue
		}
		if eta, err := protocol.ParseTime(p.Message.Headers.ETA); err == nil {
			p.Delay = min(max(time.Until(eta), 0), p.Delay)
		}
	}
}

// passing reports whether an error of sending is about the broker's state and not about the message.
func passing(err error) bool {
	return errors.Is(err, errAnnouncing) || errors.Is(err, transport.ErrBrokerFull) || errors.Is(err, transport.ErrClosed) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// unsendable ends a task whose next message cannot be sent: there is no queue for it, or the broker does not take it. Its
// own message goes to quarantine, so that nothing is lost; a task that waits for its retry has failed, with the error
// it was to be retried for; and the rest of its workflow is told.
func (w *Worker) unsendable(o *outcome, err error) bool {
	reason := "what follows the task cannot be sent: " + err.Error()
	if o.unsent { // nor can what tells of that
		w.log.Error(reason, "task", o.request.Task, "task_id", o.request.ID)
		return true
	}
	bodies, replaced := o.bodies, o.replaced
	o.unsent, o.continuation = true, continuation{ended: o.ended}
	x := task.ExceptionOf(task.AsPython(err, "kombu.exceptions", "OperationalError"))
	if o.settled {
		w.setAside(o, reason)
	} else {
		w.log.Error(reason+"; its message is quarantined", "task", o.request.Task, "task_id", o.request.ID)
		o.verdict, o.reason = transport.Quarantine, reason
		w.quarantined.Add(1)
		w.tellQuarantined(o.delivery, o.request, x, reason)
	}
	switch o.state {
	case protocol.Retry:
		w.failRetry(o, x)
	case protocol.Success:
		for _, sig := range slices.Backward(o.request.Embed.Chain) {
			w.lose(o, sig, protocol.Failure, x, "")
		}
	case protocol.Ignored:
		if replaced {
			w.failReplaced(o, x)
		}
	}
	for _, body := range bodies {
		w.failChord(o, body, "Callback error: "+x.String(), nil)
	}
	told := []*outcome{o}
	if !w.storeResults(told) || !w.countParts(told) {
		return false
	}
	return !o.goesOn() || w.follow(o)
}

// failReplaced makes a failure of a task in whose place nothing can be sent.
func (w *Worker) failReplaced(o *outcome, x *protocol.Exception) {
	o.state = protocol.Failure
	w.failed.Add(1)
	children := w.fail(o, x, "")
	if o.run != nil && w.storesError(o.run.job) {
		o.meta = w.meta(o.run.job, protocol.Failure, x, "")
		o.meta.Children = children
	}
}

// failRetry makes a failure of a task that was to be retried.
func (w *Worker) failRetry(o *outcome, x *protocol.Exception) {
	o.state = protocol.Failure
	w.failed.Add(1)
	c := completion{state: protocol.Failure, exception: x}
	if o.meta != nil {
		failed := *o.meta
		failed.Status, failed.DateDone = protocol.Failure, time.Now()
		if failed.Exception == nil {
			failed.Exception = x
		}
		c.exception, c.traceback = failed.Exception, failed.Traceback
		o.meta = &failed
	}
	if children := w.carryOn(o, &c); o.meta != nil {
		o.meta.Children = append(slices.Clip(o.meta.Children), children...)
	}
	if o.run != nil {
		w.logOutcome(o.run, c)
		w.tellEnded(o.run, c)
		o.events, o.counts = w.events.ofRun(o, o.run, &c), w.metrics.ofRun(o, &c)
	}
}

// forsake ends what a stop has left of an outcome. A message that is held goes back; one that was acknowledged early would
// be gone with what was to follow it.
func (w *Worker) forsake(o *outcome) {
	if o.settled && len(o.following) > 0 {
		w.setAside(o, "the worker stopped before what follows the task was sent")
	}
}

// setAside puts the message of an outcome that was acknowledged early in quarantine, if the transport can; else it is
// lost, and the log says so.
func (w *Worker) setAside(o *outcome, reason string) {
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	err := errors.ErrUnsupported
	if t, ok := w.consumer.(transport.Quarantiner); ok {
		err = t.Quarantine(ctx, o.delivery, reason)
	}
	if err != nil {
		w.log.Error("task lost: "+reason+"; its message was acknowledged before it ran, and cannot be quarantined", "task", o.request.Task,
			"task_id", o.request.ID, "queue", o.delivery.Queue, "body_bytes", len(o.delivery.Message.Body), "error", err)
		return
	}
	w.log.Error(reason+"; its message is quarantined", "task", o.request.Task, "task_id", o.request.ID, "queue", o.delivery.Queue)
	w.quarantined.Add(1)
	x := task.ExceptionOf(task.AsPython(errors.New(reason), "kombu.exceptions", "OperationalError"))
	w.tellQuarantined(o.delivery, o.request, x, reason)
}

// anew is the message of a delivery as one that has not been handed out yet, to be sent once more.
func anew(d *transport.Delivery) *protocol.Message {
	m := *d.Message
	m.Headers.Redelivered, m.Properties.DeliveryTag = false, ""
	return &m
}
