package worker

import (
	"context"
	"time"

	"github.com/gelery/gelery/transport"
)

// leastDelay is the least time that is worth a way through the broker, which counts in whole seconds. What comes back
// early, by less than that, is parked; so nothing goes round twice for the same second.
const leastDelay = time.Second

// delaying is the actor that gives jobs whose eta has not come back to a broker that can keep them. Held here they would
// use up RabbitMQ's prefetch, with everything behind them stuck, and after its consumer_timeout lose the channel. What
// has come back is admitted like any other message, so that what was decided meanwhile (revoked, expired) holds for it.
type delaying struct {
	w      *Worker
	broker transport.Delayer // nil: it cannot keep them
	jobs   chan *parked      // has room for the whole window, in which all of them count
	warned time.Time         // when it last was said that the broker did not keep some
}

// newDelaying needs the worker's consumer.
func newDelaying(w *Worker) *delaying {
	d := &delaying{w: w}
	if broker, ok := w.consumer.(transport.Delayer); ok {
		d.broker, d.jobs = broker, make(chan *parked, w.window.size)
	}
	return d
}

// take accepts a job that is due at eta. False leaves it to the caller: it is due too soon, or the broker cannot keep it.
func (d *delaying) take(j *job, eta time.Time) bool {
	if d.broker == nil || time.Until(eta) < leastDelay {
		return false
	}
	select {
	case d.jobs <- &parked{job: j, eta: eta}:
		return true
	default:
		return false
	}
}

// run hands jobs over until ctx is done; those still waiting then are left held and go back to their queue.
func (d *delaying) run(ctx context.Context) {
	for {
		select {
		case first := <-d.jobs:
			d.handOver(d.gather(first))
		case <-ctx.Done():
			return
		}
	}
}

// gather takes what else is waiting.
func (d *delaying) gather(first *parked) []*parked {
	batch := append(make([]*parked, 0, min(d.w.batch, 1+len(d.jobs))), first)
	for len(batch) < d.w.batch {
		select {
		case x := <-d.jobs:
			batch = append(batch, x)
		default:
			return batch
		}
	}
	return batch
}

// handOver gives a batch to the broker. A warm stop waits for it, so that no message is both delayed and given back; a
// cold one does not. Jobs the broker did not take are parked.
func (d *delaying) handOver(batch []*parked) {
	now := time.Now() // the jobs may have waited
	leaving := make([]transport.Delayed, 0, len(batch))
	jobs := make(map[*transport.Delivery]*parked, len(batch))
	for _, x := range batch {
		if after := x.eta.Sub(now); after >= leastDelay {
			leaving = append(leaving, transport.Delayed{Delivery: x.job.delivery, After: min(after, transport.MaxDelay)})
			jobs[x.job.delivery] = x
		} else {
			d.w.parking.park(x.job, x.eta)
		}
	}
	if len(leaving) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(d.w.running, settleGrace)
	defer cancel()
	kept, err := d.broker.Delay(ctx, leaving)
	if len(kept) < len(leaving) {
		d.w.window.free(len(leaving) - len(kept))
	}
	for _, k := range kept {
		x := jobs[k.Delivery]
		d.w.parking.park(x.job, x.eta)
	}
	if len(kept) > 0 && !d.w.terminated() && now.Sub(d.warned) >= time.Minute {
		d.warned = now
		d.w.log.Warn("the broker did not keep tasks that are not due, they are held here", "tasks", len(kept), "error", err)
	}
}
