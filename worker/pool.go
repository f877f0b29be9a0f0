package worker

import (
	"context"
	"slices"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// pool is where jobs run.
type pool interface {
	// open begins what the pool needs to run jobs. Nothing is run before.
	open()
	// reserve waits until there is where the job can run. False: ctx was done before, and the job has not begun.
	reserve(ctx context.Context, j *job) bool
	// run runs a job and returns what came of it. When e.givenUp() is closed nobody waits for that any more: a pool that can
	// kill kills, and returns. ctx is the task's, with a soft time limit as its deadline; it is cancelled with the cause.
	run(ctx context.Context, e *execution) completion
	// release gives back what was reserved for the job, once its code does not run any more.
	release(j *job)
	// resize follows a change of the number of slots.
	resize(slots int)
	// pids are those of the processes that jobs run in, sorted.
	pids() []int
	// close ends what the pool keeps. No slot runs a job then, but what a cold stop has left behind may still go on.
	close()
}

// runJob runs one job to its outcome and until its slot is free again; when ctx is done, only to its outcome.
func (w *Worker) runJob(ctx context.Context, j *job) {
	o := &outcome{delivery: j.delivery, request: j.request}
	if w.acksEarly(j) {
		if ctx.Err() != nil {
			w.leave(j)
			return
		}
		if !w.ackEarly(j) {
			return
		}
		o.settled = true
	}
	ignore := w.ignoresResult(j)
	e, c, running := w.execute(j, ignore)
	if c.lost {
		c = lostProcess(j, c, o.settled)
	}
	if c.state == "" || c.state != protocol.Success && c.state != protocol.Revoked && w.terminated() {
		w.tellCut(e)
		w.runAgain(o, j) // a stop is not a failure
		return
	}
	o.run, c.runtime = e, time.Since(e.begun)
	w.conclude(o, e, &c, ignore)
	w.logOutcome(e, c)
	w.tellEnded(e, c)
	o.events, o.counts = w.events.ofRun(o, e, &c), w.metrics.ofRun(o, &c)
	w.report(o)
	if running != nil {
		w.awaitGivenUp(ctx, e, running)
	}
}

// conclude turns a completion into the outcome's verdict and result document, and adds what follows in its workflow. The
// completion becomes a failure if that cannot be.
func (w *Worker) conclude(o *outcome, e *execution, c *completion, ignore bool) {
	children := e.info.Children()
	o.following = c.following
	if c.replacement != nil || follows(&o.request.Embed) {
		children = append(slices.Clip(children), w.carryOn(o, c)...)
	}
	if e.task.builtin && o.request.Task == unlockTask && c.state == protocol.Success {
		w.unlocked(o, c)
	}
	o.state = c.state
	switch c.state {
	case protocol.Success:
		w.succeeded.Add(1)
	case protocol.Failure:
		w.failed.Add(1)
		if !w.acksFailure(e.job, c.timedOut) {
			o.verdict = transport.Reject
		}
	case protocol.Rejected:
		o.verdict = transport.Reject
		if c.requeue {
			o.verdict = transport.Requeue
		}
		return
	case protocol.Ignored:
		return
	}
	if !ignore || w.config.StoreErrorsEvenIfIgnored && c.state.Exceptional() {
		o.meta = w.meta(e.job, c.state, c.exception, c.traceback)
		o.meta.Result, o.meta.Children = c.result, children
	}
}

func (w *Worker) tracksStarted(j *job) bool {
	if t := j.task.Defaults.TrackStarted; t != nil {
		return *t
	}
	return w.config.TrackStarted
}
