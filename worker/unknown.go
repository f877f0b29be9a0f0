package worker

import (
	"fmt"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/transport"
)

// What a worker does with a message of a task that it does not know: [Config].UnknownTask.
const (
	unknownFail    = "fail"
	unknownReject  = "reject"
	unknownRequeue = "requeue"
)

// A message that is handed back waits before it goes, the longer the more often, so that it does not fly between two
// workers who both do not know its task: from the first delay doubling to the last.
const (
	firstHop = 100 * time.Millisecond
	lastHop  = 30 * time.Second
)

// unknown ends a message of a task that is not registered, as the worker is told to.
func (w *Worker) unknown(d *transport.Delivery, r *protocol.Request) {
	x := &protocol.Exception{Type: "NotRegistered", Module: "celery.exceptions", Args: []any{r.Task}}
	reason := "task is not registered: " + r.Task
	switch w.config.UnknownTask {
	case unknownReject:
		w.log.Error("Received unregistered task of type "+value.Repr(r.Task, resultReprSize)+". Its message is rejected",
			"queue", d.Queue, "task_id", r.ID)
		w.tellQuarantined(d, r, x, reason)
		o := &outcome{delivery: d, request: r, verdict: transport.Reject, meta: w.refusal(r, x), events: w.events.ofRefusal(r, x),
			counts: failureCount(x)}
		w.carryOn(o, &completion{state: protocol.Failure, exception: x})
		w.report(o)
		return
	case unknownRequeue:
		n := r.Hops()
		if most := w.config.UnknownTaskHops; most < 0 || n < most {
			w.strangers.park(&job{delivery: d, request: r}, time.Now().Add(hopDelay(n)))
			return
		}
		reason += fmt.Sprintf("; it was handed back %d times, and nobody has taken it who knows it", n)
	}
	w.refuse(d, r, x, reason)
}

func hopDelay(hops int) time.Duration {
	if hops >= 10 {
		return lastHop
	}
	return min(firstHop<<hops, lastHop)
}

// handBack gives a message of an unknown task back to its queue, behind what waits there and with one more hop counted:
// sent anew and then acknowledged. It is otherwise as it came, and not marked as redelivered.
func (w *Worker) handBack(j *job) {
	m := anew(j.delivery)
	m.Headers.SetHops(m.Headers.Hops() + 1)
	w.log.Info("Handing back unregistered task of type "+value.Repr(j.request.Task, resultReprSize), "queue", j.delivery.Queue,
		"task_id", j.request.ID, "hops", m.Headers.Hops())
	w.report(&outcome{delivery: j.delivery, request: j.request,
		continuation: continuation{following: []transport.Publication{{Message: m, RoutingKey: j.delivery.Queue}}}})
}
