package worker

import (
	"github.com/gelery/gelery/transport"
)

// acksEarly tells whether a job's message is acknowledged before it runs.
func (w *Worker) acksEarly(j *job) bool {
	if early := j.task.Defaults.AckEarly; early != nil {
		return *early
	}
	return w.config.AckEarly
}

// acksFailure tells whether a job's message is acknowledged when it has failed, which may be by a time limit.
func (w *Worker) acksFailure(j *job, timedOut bool) bool {
	own, general := j.task.Defaults.AckOnFailure, w.config.AckOnFailure
	if timedOut {
		own, general = j.task.Defaults.AckOnTimeout, w.config.AckOnTimeout
	}
	switch {
	case own != nil:
		return *own
	case general != nil:
		return *general
	}
	return true
}

// ackEarly acknowledges before the run, for tasks that must not run twice. The task begins only if that was not too late:
// Redis has answered then, while AMQP has no answer. After false the message is another's, comes again as a new one, or
// is given back when the worker stops.
func (w *Worker) ackEarly(j *job) bool {
	early := transport.Settlement{Delivery: j.delivery, Verdict: transport.Ack, Undone: true}
	lost, err := w.consumer.Settle(w.applying, []transport.Settlement{early})
	if err != nil || lost > 0 {
		w.log.Warn("task not begun: its message could not be acknowledged before", "task", j.request.Task,
			"task_id", j.request.ID, "lost", lost, "error", err)
		w.window.free(1)
		return false
	}
	return true
}
