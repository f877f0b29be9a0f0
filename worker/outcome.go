package worker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// outcome is how a delivery ends. It is applied in one place and in one order: store the result, emit the event, send what follows,
// settle the delivery. A crash between two steps leaves the delivery with the broker, and whoever gets
// it next repeats the steps; a SUCCESS that is stored already stays.
type outcome struct {
	delivery     *transport.Delivery
	request      *protocol.Request // nil when the message could not be read
	state        protocol.State
	meta         *protocol.ResultMeta // what to store; nil: nothing
	continuation                      // what is to be done and sent between the storing and the settling
	verdict      transport.Verdict
	reason       string     // of a quarantine
	settled      bool       // acknowledged early: nothing to settle
	unsent       bool       // what was to follow could not be sent
	lastCall     bool       // of a chord without a size: see unsized
	run          *execution // nil: there was none, or a stop has ended it
	events       []event    // nil: there are none, or nobody wants them
	counts       countedAs  // what it counts as once it is stored
}

// batch bounds a batch of outcomes by a part of what the worker holds. Smaller ones cost more calls, but a batch of
// everything leaves the worker waiting for Redis and then Redis for the worker, where of two halves one can be run while
// the other is stored and settled.
func (w *Worker) batch() int { return min(max(w.window.bound()/2, 4), 256) }

// report hands an outcome to the actors below. After a cold stop nobody applies it: the delivery goes back.
func (w *Worker) report(o *outcome) {
	if w.applying.Err() != nil {
		w.forsake(o)
		return
	}
	select {
	case w.outcomes <- o:
	case <-w.applying.Done():
		w.forsake(o)
	}
}

// store is the actor that stores results. It takes what has come while it was busy as one batch; with nothing else
// waiting a batch of one leaves at once.
func (w *Worker) store(next chan<- []*outcome) {
	defer func() {
		w.followers.Wait()
		close(next)
		for len(w.outcomes) > 0 { // a cold stop
			if o := <-w.outcomes; o != nil {
				w.forsake(o)
			}
		}
	}()
	for {
		var first *outcome
		select {
		case o, ok := <-w.outcomes:
			if !ok {
				return
			}
			first = o
		case <-w.applying.Done():
			return
		}
		batch := w.gather(first)
		w.pulses.store.begin()
		stored := w.storeResults(batch)
		if stored {
			w.metrics.stored(batch)
			w.events.tellOutcomes(batch) // before what follows is received and told of
		}
		if !stored || !w.countParts(batch) {
			for _, o := range batch {
				w.forsake(o)
			}
			return // a cold stop: what is not stored is not acknowledged either, and runs again elsewhere
		}
		batch = w.sendFollowing(batch, next)
		w.pulses.store.end()
		if len(batch) == 0 {
			continue
		}
		select {
		case next <- batch:
		case <-w.applying.Done():
			return
		}
	}
}

// gather takes what else is waiting.
func (w *Worker) gather(first *outcome) []*outcome {
	most := w.batch()
	batch := append(make([]*outcome, 0, min(most, 1+len(w.outcomes))), first)
	for len(batch) < most {
		select {
		case o, ok := <-w.outcomes:
			if !ok {
				return batch
			}
			batch = append(batch, o)
		default:
			return batch
		}
	}
	return batch
}

// storeResults stores what a batch has to store, and goes on trying until it has or a cold stop ends it (false): a
// backend that is away makes the worker wait, not forget. A result that cannot be stored for its own sake becomes a
// FAILURE that says so, as in Celery; nothing of the batch was written then, and it is tried again.
func (w *Worker) storeResults(batch []*outcome) bool {
	var dropped map[string]bool // ids that the backend has no place for
	for w.backend != nil {
		metas := make([]*protocol.ResultMeta, 0, len(batch))
		for _, o := range batch {
			if o.meta != nil {
				metas = append(metas, o.meta)
			}
			metas = append(metas, o.lost...)
		}
		if len(dropped) > 0 {
			metas = slices.DeleteFunc(metas, func(m *protocol.ResultMeta) bool { return dropped[m.TaskID] })
		}
		if len(metas) == 0 {
			return true
		}
		err := w.backend.Store(w.applying, metas)
		if err == nil {
			return true
		}
		if bad, ok := errors.AsType[*backends.EncodeError](err); ok {
			w.log.Error("result cannot be stored", "task_id", bad.TaskID, "error", bad.Err)
			if refuse(metas, bad) {
				w.tellInternalError(bad.TaskID, bad.Err)
				w.failRefused(batch, bad.TaskID)
				continue
			}
			// Not even that can be: the backend has no place for the id. It must not hold up the others.
			if !dropped[bad.TaskID] && slices.ContainsFunc(metas, func(m *protocol.ResultMeta) bool { return m.TaskID == bad.TaskID }) {
				if dropped == nil {
					dropped = map[string]bool{}
				}
				dropped[bad.TaskID] = true
				continue
			}
		}
		w.log.Error("results are not stored, trying again", "tasks", len(metas), "error", err)
		select {
		case <-time.After(storePause):
		case <-w.applying.Done():
			return false
		}
	}
	return true
}

// failRefused lets the workflow of a task go on as one that has failed, whose result could not be stored.
func (w *Worker) failRefused(batch []*outcome, id string) {
	for _, o := range batch {
		if o.meta == nil || o.meta.TaskID != id || o.state != protocol.Success || !follows(&o.request.Embed) {
			continue
		}
		o.state, o.continuation = protocol.Failure, continuation{}
		o.meta.Children = w.fail(o, o.meta.Exception, "")
	}
}

// storePause is the wait after the backend refused a batch; while it does not answer, the driver waits by itself.
const storePause = time.Second

// refuse replaces the result the backend named, once.
func refuse(metas []*protocol.ResultMeta, bad *backends.EncodeError) bool {
	for _, m := range metas {
		if m.TaskID == bad.TaskID && (m.Exception == nil || m.Exception.Type != "EncodeError") {
			unencodable(m, bad.Err)
			return true
		}
	}
	return false
}

// unencodable replaces a result nobody could read.
func unencodable(m *protocol.ResultMeta, err error) {
	m.Status, m.DateDone = protocol.Failure, time.Now()
	m.Result, m.Extended = nil, nil
	m.Exception = &protocol.Exception{Type: "EncodeError", Module: "kombu.exceptions", Args: []any{err.Error()}}
	m.Traceback = ""
}

// settle is the actor that settles deliveries whose results are stored.
func (w *Worker) settle(batches <-chan []*outcome) {
	for batch := range batches {
		w.pulses.settle.begin()
		w.metrics.stored(batch)
		w.events.tellOutcomes(batch) // what could not be sent after all
		settlements := make([]transport.Settlement, 0, len(batch))
		for _, o := range batch {
			if !o.settled {
				settlements = append(settlements, transport.Settlement{Delivery: o.delivery, Verdict: o.verdict, Reason: o.reason})
			}
		}
		if len(settlements) > 0 {
			lost, err := w.consumer.Settle(w.applying, settlements)
			switch {
			case err != nil: // a cold stop gave up
				w.log.Error("messages were not acknowledged; their tasks may run again", "tasks", len(settlements), "error", err)
			case lost > 0:
				w.log.Warn("the broker took messages back before they were acknowledged; their tasks run twice where another worker gets them",
					"tasks", lost)
			}
		}
		w.window.free(len(batch))
		w.pulses.settle.end()
	}
}

// storeStarted stores STARTED before a task begins. What decides the outcome ends the wait too.
func (w *Worker) storeStarted(e *execution) error {
	ctx, cancel := context.WithTimeout(e.ctx, settleGrace)
	defer cancel()
	return e.info.Report(ctx, protocol.Started, map[string]any{"pid": int64(ownPID), "hostname": w.config.Hostname})
}
