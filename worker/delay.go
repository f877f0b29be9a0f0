package worker

import (
	"container/heap"
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/gelery/gelery/transport"
)

// leastDelay is the least time that is worth a way through the broker, which counts in whole seconds. What comes back
// early, by less than that, is parked; so nothing goes round twice for the same second.
const leastDelay = time.Second

// What the broker did not take is offered again after a pause, which doubles from the first to the last.
const (
	firstDelayPause = time.Second
	lastDelayPause  = time.Minute
)

// delayPatience is how long the broker may take to answer. One that is well takes milliseconds, one that is overloaded
// seconds, and a quorum queue without a leader never does.
const delayPatience = 2 * time.Minute

// delaying is the actor that gives jobs whose eta has not come back to a broker that can keep them. Held here they would
// use up RabbitMQ's prefetch, with everything behind them stuck, and after its consumer_timeout lose the channel. What
// has come back is admitted like any other message, so that what was decided meanwhile (revoked, expired) holds for it.
// What the broker does not take (it has an alarm, or the user may not) is parked, and offered again a little later.
type delaying struct {
	w      *Worker
	broker transport.Delayer // nil: it cannot keep them
	jobs   chan *parked      // has room for the whole window, in which all of them count

	patience time.Duration // delayPatience
	behind   atomic.Bool   // some are parked that the broker is to have when it has time
	handed   handedOver

	rest   <-chan time.Time // ends a pause; nil: there is none
	pause  time.Duration    // the next one
	warned time.Time        // when it last was said that the broker did not keep some
}

// newDelaying needs the worker's consumer.
func newDelaying(w *Worker) *delaying {
	d := &delaying{w: w, pause: firstDelayPause, patience: delayPatience}
	if broker, ok := w.consumer.(transport.Delayer); ok {
		d.broker, d.jobs = broker, make(chan *parked, w.window.bound())
	}
	return d
}

// take accepts a job that is due at eta. False leaves it to the caller: it is due too soon, or the broker cannot keep it, or
// had better not, and there is room here.
func (d *delaying) take(j *job, eta time.Time) bool {
	if d.broker == nil {
		return false
	}
	after := time.Until(eta)
	if after < leastDelay {
		return false
	}
	if worth := d.broker.Worth(j.delivery); worth > leastDelay {
		if after < worth && d.w.parking.holds() < maxByChoice {
			return false
		}
		// The way through the broker is slow, and what waits for it counts in the window, so that nothing else would come.
		if len(d.jobs) >= d.w.batch() && d.w.parking.holds() < maxParked {
			d.behind.Store(true)
			return false
		}
	}
	select {
	case d.jobs <- &parked{job: j, eta: eta}:
		d.handed.add(parked{job: j, eta: eta})
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
			if d.rest != nil {
				d.w.parking.park(first.job, first.eta)
			} else {
				d.handOver(ctx, d.gather(first))
			}
			if d.rest == nil && d.behind.Swap(false) {
				d.rest = time.After(firstDelayPause)
			}
		case <-d.rest:
			d.rest = nil
			for ctx.Err() == nil && d.rest == nil {
				batch := d.w.parking.takeOut(d.w.batch(), d.broker.Worth)
				if len(batch) == 0 {
					d.pause = firstDelayPause
					break
				}
				d.handOver(ctx, batch)
			}
		case <-ctx.Done():
			return
		}
	}
}

// gather takes what else is waiting.
func (d *delaying) gather(first *parked) []*parked {
	most := d.w.batch()
	batch := append(make([]*parked, 0, min(most, 1+len(d.jobs))), first)
	for len(batch) < most {
		select {
		case x := <-d.jobs:
			batch = append(batch, x)
		default:
			return batch
		}
	}
	return batch
}

// handOver gives a batch to the broker, and parks what that does not take. As long as the broker has not answered, its
// messages may be there already, and would come twice if they were given up; so it has long to answer. What it then has
// not answered is parked and not offered again, or each offer might leave one more copy behind. A warm stop waits a little
// for the answer, a cold one does not. What comes meanwhile is parked, lest it fill the window.
func (d *delaying) handOver(ctx context.Context, batch []*parked) {
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
	var kept []transport.Delayed
	var err error
	done := make(chan struct{})
	limit, cancel := d.w.outlast(ctx, settleGrace)
	defer cancel()
	limit, cancelLimit := context.WithTimeout(limit, d.patience)
	defer cancelLimit()
	go func() {
		defer close(done)
		kept, err = d.broker.Delay(limit, leaving)
	}()
	diverted := d.divert(done)
	if len(kept) < len(leaving) {
		d.w.window.free(len(leaving) - len(kept))
	}
	for _, k := range kept {
		x := jobs[k.Delivery]
		x.doubtful = errors.Is(limit.Err(), context.DeadlineExceeded)
		d.w.parking.add(x)
	}
	if len(kept)+diverted == 0 {
		return
	}
	d.rest = time.After(d.pause)
	if len(kept) == len(leaving) {
		d.pause = min(2*d.pause, lastDelayPause)
	}
	if len(kept) > 0 && ctx.Err() == nil && now.Sub(d.warned) >= time.Minute {
		d.warned = now
		d.w.log.Warn("the broker did not keep tasks that are not due, they are held here for now", "tasks", len(kept), "error", err)
	}
}

// divert waits until done is closed. If that takes long, it parks what comes meanwhile, and tells how much that was.
func (d *delaying) divert(done <-chan struct{}) (diverted int) {
	slow := time.NewTimer(firstDelayPause)
	defer slow.Stop()
	var jobs <-chan *parked // nil until it takes long
	for {
		select {
		case <-done:
			return diverted
		case <-slow.C:
			jobs = d.jobs
		case x := <-jobs:
			d.w.parking.park(x.job, x.eta)
			diverted++
		}
	}
}

// outlast is the context of a call that ends with a cold stop, or when a warm one has waited for it.
func (w *Worker) outlast(stop context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(w.running)
	unhook := context.AfterFunc(stop, func() {
		select {
		case <-time.After(grace):
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() { unhook(); cancel() }
}

// takeOut takes at most n jobs out that are worth a delay, and counts them in the window again. It begins anywhere, so
// that some which the broker never takes do not stand before all others.
func (p *parking) takeOut(n int, worth func(*transport.Delivery) time.Duration) (batch []*parked) {
	now, counted := time.Now(), 0
	p.mu.Lock()
	if all := len(p.jobs); all > 0 {
		for i := rand.IntN(all); all > 0 && len(batch) < n; all-- {
			i = (i + 1) % len(p.jobs)
			if x := p.jobs[i]; x.doubtful || x.eta.Sub(now) < worth(x.job.delivery) {
				continue
			}
			x := heap.Remove(&p.jobs, i).(*parked) // moves others about, and one that is overlooked has its turn later
			if x.outside {
				p.outside--
				counted++
			}
			batch = append(batch, x)
		}
	}
	p.mu.Unlock()
	p.w.window.take(counted)
	return batch
}
