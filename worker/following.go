package worker

import (
	"context"
	"errors"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// followPatience is how long a batch of outcomes waits for what follows some of its tasks to be sent. What takes longer,
// because its queue takes nothing, goes on by itself and is settled when it is sent.
const followPatience = 250 * time.Millisecond

// sendFollowing sends what follows the tasks of a batch, each for itself, so that what cannot be sent harms no other, and
// returns what can be settled. The rest is handed on later, by goroutines that are counted in w.followers; there are no
// more of them than deliveries are held.
func (w *Worker) sendFollowing(batch []*outcome, next chan<- []*outcome) (settle []*outcome) {
	settle = make([]*outcome, 0, len(batch))
	var waiting int
	sent := make(chan *outcome, len(batch))
	for _, o := range batch {
		if len(o.following) == 0 {
			settle = append(settle, o)
			continue
		}
		waiting++
		w.followers.Go(func() {
			if w.follow(o) {
				sent <- o
			} else {
				sent <- nil // a cold stop
			}
		})
	}
	if waiting == 0 {
		return batch
	}
	patience := time.NewTimer(followPatience)
	defer patience.Stop()
	for waiting > 0 {
		select {
		case o := <-sent:
			waiting--
			if o != nil {
				settle = append(settle, o)
			}
			continue
		case <-patience.C:
		}
		late := waiting
		w.followers.Go(func() {
			for range late {
				if o := <-sent; o != nil {
					select {
					case next <- []*outcome{o}:
					case <-w.applying.Done():
					}
				}
			}
		})
		break
	}
	return settle
}

// follow sends what follows one task, and goes on trying until it is sent, or cannot be, or a cold stop ends it (false).
func (w *Worker) follow(o *outcome) bool {
	for {
		err := w.client.Forward(w.applying, o.following)
		switch {
		case err == nil:
			return true
		case w.applying.Err() != nil:
			return false
		case !passing(err):
			return w.unsendable(o, err)
		}
		w.log.Error("what follows a task is not sent, trying again", "task", o.request.Task, "task_id", o.request.ID, "error", err)
		select {
		case <-time.After(storePause):
		case <-w.applying.Done():
			return false
		}
	}
}

// passing reports whether an error of sending is about the broker's state and not about the message.
func passing(err error) bool {
	return errors.Is(err, transport.ErrBrokerFull) || errors.Is(err, transport.ErrClosed) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// unsendable ends a task whose next message cannot be sent: there is no queue for it, or the broker does not take it. Its
// own message goes to quarantine, so that nothing is lost; and a task that waits for its retry has failed, with the error
// it was to be retried for.
func (w *Worker) unsendable(o *outcome, err error) bool {
	w.log.Error("what follows a task cannot be sent; its message is quarantined", "task", o.request.Task, "task_id", o.request.ID,
		"error", err)
	o.verdict, o.reason = transport.Quarantine, "what follows the task cannot be sent: "+err.Error()
	w.quarantined.Add(1)
	if o.state != protocol.Retry {
		return true
	}
	o.state = protocol.Failure
	w.failed.Add(1)
	if o.meta == nil {
		return true
	}
	failed := *o.meta
	failed.Status, failed.DateDone = protocol.Failure, time.Now()
	if failed.Exception == nil {
		failed.Exception = task.ExceptionOf(task.AsPython(err, "kombu.exceptions", "OperationalError"))
	}
	o.meta = &failed
	return w.storeResults([]*outcome{o})
}

// anew is the message of a delivery as one that has not been handed out yet, to be sent once more.
func anew(d *transport.Delivery) *protocol.Message {
	m := *d.Message
	m.Headers.Redelivered, m.Properties.DeliveryTag = false, ""
	return &m
}
