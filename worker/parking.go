package worker

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// maxParked bounds the jobs kept for later. Beyond it they count against the window like any other, so that a flood of
// delayed tasks makes the worker receive less instead of growing it.
const maxParked = 10_000

// parking is the actor that keeps jobs whose eta has not come. They stay held, their leases are renewed, and they are
// given back when the worker stops.
type parking struct {
	w *Worker

	mu     sync.Mutex
	jobs   parkedJobs
	sooner chan struct{} // capacity 1: a job came that is due before all others
}

type parked struct {
	job     *job
	eta     time.Time
	outside bool // not counted in the window
}

func newParking(w *Worker) *parking { return &parking{w: w, sooner: make(chan struct{}, 1)} }

// park keeps a job until its eta.
func (p *parking) park(j *job, eta time.Time) {
	p.mu.Lock()
	x := parked{j, eta, len(p.jobs) < maxParked}
	heap.Push(&p.jobs, x)
	first := p.jobs[0].job == j
	p.mu.Unlock()
	if x.outside {
		p.w.window.free(1)
	}
	if first {
		select {
		case p.sooner <- struct{}{}:
		default:
		}
	}
}

// run hands jobs on as they come due, until ctx is done.
func (p *parking) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		due, next := p.due(time.Now())
		for _, x := range due {
			if x.outside {
				p.w.window.take(1)
			}
			p.w.enqueue(ctx, x.job)
		}
		timer.Reset(min(next, time.Hour))
		select {
		case <-timer.C:
		case <-p.sooner:
		case <-ctx.Done():
			return
		}
	}
}

// due takes out the jobs whose time has come and tells how long the next one has.
func (p *parking) due(now time.Time) (due []parked, next time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.jobs) > 0 {
		if wait := p.jobs[0].eta.Sub(now); wait > 0 {
			return due, wait
		}
		due = append(due, heap.Pop(&p.jobs).(parked))
	}
	return due, time.Hour
}

// parkedJobs is a heap by eta.
type parkedJobs []parked

func (h parkedJobs) Len() int           { return len(h) }
func (h parkedJobs) Less(i, j int) bool { return h[i].eta.Before(h[j].eta) }
func (h parkedJobs) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *parkedJobs) Push(x any)        { *h = append(*h, x.(parked)) }
func (h *parkedJobs) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = parked{} // let go of the job
	*h = old[:len(old)-1]
	return x
}
