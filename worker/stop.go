package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gelery/gelery/transport"
)

// ErrTerminated is the cause of a task's context when a cold stop ends it, and what Run then returns.
var ErrTerminated = errors.New("worker was stopped cold")

const (
	// settleGrace bounds how long a worker waits for the broker to take what it must not lose, where it does not wait for ever.
	settleGrace = 10 * time.Second
	// stopGrace bounds each of the steps of a stop that need nothing but the broker: giving back, reporting when no task
	// runs any more, closing.
	stopGrace = 5 * time.Second
	// coldGrace is how long a cold stop waits for tasks to obey their contexts.
	coldGrace = 2 * time.Second
	// stopTick is how often a stop looks whether tasks still run.
	stopTick = 50 * time.Millisecond
)

// Stop begins a warm stop, as the end of Run's context does.
func (w *Worker) Stop() { w.halt(nil) }

// Terminate stops a worker cold, or turns a warm stop cold. With Config.SoftStopTimeout running tasks have that long to end
// by themselves, which a second call cuts short. Then the contexts of those still running are cancelled with the cause
// ErrTerminated, and what does not end at once is given up.
//
// A stop is not a failure: whatever a task returns then, if it is no result, its message is given back to run again
// elsewhere. A message that was acknowledged early is sent again, unchanged.
func (w *Worker) Terminate() {
	w.hurry.Add(1)
	w.halt(nil)
	if w.config.SoftStopTimeout == 0 {
		w.terminate(ErrTerminated)
	}
	notify(w.hurried)
}

// terminated tells whether running tasks were cancelled by a cold stop.
func (w *Worker) terminated() bool { return w.running.Err() != nil }

// stage is how far a stop has come.
type stage int

const (
	warm stage = iota // running tasks end
	soft              // they have some time left to
	cold              // their contexts are cancelled
	gone              // those that do not obey are given up
)

// awaitStop leads through the stages of a stop, until everything is finished or is given up.
func (w *Worker) awaitStop(finished <-chan struct{}) {
	tick := time.NewTicker(stopTick)
	defer tick.Stop()
	var quiet time.Time // since when no task runs
	now := time.Now()
	at, heeded := warm, int32(0)
	next := endOf(now, w.config.StopTimeout)
	for {
		select {
		case <-finished:
			return
		case <-tick.C:
		case <-w.hurried:
		}
		now = time.Now()
		running := w.active.undecided()
		switch {
		case len(running) > 0:
			quiet = time.Time{}
		case quiet.IsZero():
			quiet = now
		case now.Sub(quiet) > stopGrace && w.active.close():
			w.log.Error("what tasks have returned cannot all be stored and acknowledged; what is not comes back and runs again")
			return
		}
		late := !next.IsZero() && now.After(next)
		hurry := w.hurry.Load()
		if !late && hurry == heeded || at == gone {
			continue
		}
		if at == warm && hurry == 0 {
			w.log.Warn("running tasks did not end in time, stopping cold", "timeout", w.config.StopTimeout)
		}
		if hurry > heeded {
			heeded++ // each call takes it one stage on
		}
		at, next = w.advance(at, now, running)
	}
}

// endOf is the end of a time, or never if there is none.
func endOf(now time.Time, d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return now.Add(d)
}

// advance takes a stop to its next stage, and tells when that is over.
func (w *Worker) advance(at stage, now time.Time, running []*execution) (stage, time.Time) {
	switch {
	case at == warm && w.config.SoftStopTimeout > 0:
		w.log.Warn(fmt.Sprintf("Initiating Soft Shutdown, terminating in %v seconds", w.config.SoftStopTimeout.Seconds()), "tasks", len(running))
		return soft, now.Add(w.config.SoftStopTimeout)
	case at < cold:
		w.log.Warn("Cold shutdown", "tasks", len(running))
		w.terminate(ErrTerminated)
		return cold, now.Add(coldGrace)
	default:
		for _, e := range running {
			w.log.Warn("Task "+fullName(e.request)+" does not heed the end of its context; it is given up and will run again", "task_id", e.request.ID)
			e.end(completion{}, ErrTerminated)
		}
		return gone, time.Time{}
	}
}

// all are the executions under way.
func (a *active) all() []*execution {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.runs))
}

// undecided are the executions whose outcome is not decided.
func (a *active) undecided() []*execution {
	return slices.DeleteFunc(a.all(), func(e *execution) bool { return !e.undecided() })
}

// runAgain makes the outcome of a run that a cold stop has ended. Nothing, if the message is still held: it goes back. One
// that was acknowledged before is sent again to the queue it came from, unchanged: the same id, the same retries.
func (w *Worker) runAgain(o *outcome, j *job) {
	if !o.settled {
		return
	}
	o.following = []transport.Publication{{Message: anew(j.delivery), RoutingKey: j.delivery.Queue}}
	w.log.Warn("Task "+fullName(j.request)+" was ended by the stop; its message is sent again", "task_id", j.request.ID)
	w.report(o)
}

// unbegun collects jobs that a stop has met on their way to a slot, or in one before they began.
type unbegun struct {
	mu    sync.Mutex
	jobs  []*job
	taken bool // what comes now is late
}

// add adds jobs. Late: they were taken already, and the caller must give these back.
func (u *unbegun) add(jobs ...*job) (late bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.taken {
		u.jobs = append(u.jobs, jobs...)
	}
	return u.taken
}

func (u *unbegun) takeAll() []*job {
	u.mu.Lock()
	defer u.mu.Unlock()
	jobs := u.jobs
	u.jobs, u.taken = nil, true
	return jobs
}

// leave gives back a job that a stop keeps from beginning in its slot.
func (w *Worker) leave(j *job) {
	if !w.unbegun.add(j) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	w.restore(ctx, []*job{j})
}

// awaitForsaken waits, when nothing is applied any more, for what is set aside of it.
func (w *Worker) awaitForsaken(reporting *sync.WaitGroup) {
	ended := make(chan struct{})
	go func() {
		reporting.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(stopGrace):
	}
}

// giveBack returns to the broker, while tasks still run, what has not begun. Receiving has ended, and no job is added to
// those that wait. What it does not manage is given back at the end, when the consumer is closed.
func (w *Worker) giveBack() {
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	// First the broker must send no more: what is returned might come again, and what the driver has in hand goes back too.
	for _, q := range w.consumed() {
		if err := w.consumer.Cancel(ctx, q.Name); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			w.log.Warn("could not stop receiving before the end of the running tasks", "queue", q.Name, "error", err)
		}
	}
	for j := range w.ready { // closed
		w.unbegun.add(j)
	}
	all := func(*job) bool { return true }
	w.unbegun.add(w.takeWaiting(all)...)
	w.unbegun.add(w.strangers.takeIf(all)...)
	w.unbegun.add(w.delaying.takeAll()...)
	w.restore(ctx, w.unbegun.takeAll())
}

// restore gives jobs back that have not begun.
func (w *Worker) restore(ctx context.Context, jobs []*job) {
	if len(jobs) == 0 {
		return
	}
	batch := make([]transport.Settlement, len(jobs))
	for i, j := range jobs {
		batch[i] = transport.Settlement{Delivery: j.delivery, Verdict: transport.Return}
	}
	if _, err := w.consumer.Settle(ctx, batch); err != nil {
		w.log.Warn("what has not begun could not be given back yet", "tasks", len(batch), "error", err)
		return
	}
	w.window.free(len(batch))
	w.log.Info(fmt.Sprintf("Restoring %d unacknowledged message(s)", len(batch)))
}
