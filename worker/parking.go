package worker

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/gelery/gelery/transport"
)

// maxParked bounds the jobs kept for later. Beyond it they count against the window like any other, so that a flood of
// delayed tasks makes the worker receive less, and at last nothing, instead of growing it.
const maxParked = 10_000

// maxByChoice bounds them where the broker would keep more: what one worker holds no other one runs.
const maxByChoice = 1_000

// parking is the actor that keeps jobs whose eta has not come. They stay held, their leases are renewed, and they are
// given back when the worker stops.
type parking struct {
	w *Worker

	mu      sync.Mutex
	jobs    parkedJobs
	outside int           // how many jobs are not counted in the window
	sooner  chan struct{} // capacity 1: a job came that is due before all others
}

type parked struct {
	job      *job
	eta      time.Time
	outside  bool // not counted in the window
	doubtful bool // the broker may have it already
}

func newParking(w *Worker) *parking { return &parking{w: w, sooner: make(chan struct{}, 1)} }

// park keeps a job until its eta.
func (p *parking) park(j *job, eta time.Time) { p.add(&parked{job: j, eta: eta}) }

func (p *parking) add(x *parked) {
	p.mu.Lock()
	heap.Push(&p.jobs, x)
	out := p.letOut()
	first := p.jobs[0] == x
	p.mu.Unlock()
	p.w.outside(out...)
	if first {
		select {
		case p.sooner <- struct{}{}:
		default:
		}
	}
}

// holds tells how many jobs are here.
func (p *parking) holds() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.jobs)
}

// run hands jobs on as they come due, until ctx is done.
func (p *parking) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		due, next, out := p.due(time.Now())
		p.w.outside(out...)
		for _, x := range due {
			if x.outside {
				p.w.window.take(1)
			}
			p.w.due(ctx, x.job)
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

// due takes out the jobs whose time has come, tells how long the next one has, and which others need not be counted in
// the window any more because these left.
func (p *parking) due(now time.Time) (due []*parked, next time.Duration, out []*transport.Delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next = time.Hour
	for len(p.jobs) > 0 {
		if wait := p.jobs[0].eta.Sub(now); wait > 0 {
			next = wait
			break
		}
		x := heap.Pop(&p.jobs).(*parked)
		if x.outside {
			p.outside--
		}
		due = append(due, x)
	}
	return due, next, p.letOut()
}

// scheduled lists the jobs.
func (p *parking) scheduled() []parked {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]parked, len(p.jobs))
	for i, x := range p.jobs {
		all[i] = *x
	}
	return all
}

// letOut stops counting jobs in the window, as long as there is room outside. The caller holds mu.
func (p *parking) letOut() (out []*transport.Delivery) {
	if p.outside == len(p.jobs) {
		return nil
	}
	for _, x := range slices.Backward(p.jobs) { // a new one is near the end
		if p.outside == min(maxParked, len(p.jobs)) {
			break
		}
		if !x.outside {
			x.outside = true
			p.outside++
			out = append(out, x.job.delivery)
		}
	}
	return out
}

// parkedJobs is a heap by eta.
type parkedJobs []*parked

func (h parkedJobs) Len() int           { return len(h) }
func (h parkedJobs) Less(i, j int) bool { return h[i].eta.Before(h[j].eta) }
func (h parkedJobs) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *parkedJobs) init()             { heap.Init(h) }
func (h *parkedJobs) Push(x any)        { *h = append(*h, x.(*parked)) }
func (h *parkedJobs) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = nil // let go of the job
	*h = old[:len(old)-1]
	return x
}
