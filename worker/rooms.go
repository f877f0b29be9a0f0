package worker

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gelery/gelery/internal/sharedlimit"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// rooms are the waiting rooms of the worker, one for each task that has a limit, and queue that has one. The first room
// of a task is opened by the first job that has to wait.
type rooms struct {
	w        *Worker
	limiting atomic.Bool // anything has a limit

	mu      sync.Mutex
	tasks   map[string][]limit
	queues  map[string][]limit
	buckets map[string]*bucket // those of tasks
	rooms   map[roomKey]*room

	start func(run func(context.Context)) // starts the actor of a room

	shared []sharedLimit
	redis  func() *sharedlimit.Limits // opens where these are
	limits *sharedlimit.Limits        // which is nil if there are none
	actors sync.WaitGroup             // of the shared limits
	end    context.CancelFunc         // ends them
}

// roomKey names what has the limits: a task, a queue, or a task on a queue that both have some.
type roomKey struct{ task, queue string }

// newRooms makes the limits of the tasks. It needs the worker's configuration.
func newRooms(w *Worker) (*rooms, error) {
	rs := &rooms{w: w, tasks: map[string][]limit{}, queues: map[string][]limit{}, buckets: map[string]*bucket{}, rooms: map[roomKey]*room{}}
	for name, d := range w.tasks {
		rate, err := w.config.rateLimit(d.Definition)
		if err != nil {
			return nil, err
		}
		if rate > 0 {
			rs.bucket(name).set(rate)
		}
		if n := d.Defaults.Concurrency; n > 0 {
			rs.limit(name, &concurrencyLimit{most: n})
		}
	}
	if err := rs.share(&w.config, w.client.Config()); err != nil {
		return nil, err
	}
	rs.limiting.Store(len(rs.tasks)+len(rs.queues) > 0)
	return rs, nil
}

// bucket is the rate limit of a task, which may be none. Every task that has any limit has one, so that its limits, once
// there are some, are always the same.
func (rs *rooms) bucket(name string) *bucket {
	b := rs.buckets[name]
	if b == nil {
		b = &bucket{}
		rs.buckets[name] = b
		rs.tasks[name] = []limit{b}
	}
	return b
}

// limit adds a limit to a task.
func (rs *rooms) limit(name string, l limit) {
	rs.bucket(name)
	rs.tasks[name] = append(rs.tasks[name], l)
}

// setRate sets the rate of a task.
func (rs *rooms) setRate(name string, rate task.Rate) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	b := rs.bucket(name)
	b.set(rate)
	rs.limiting.Store(true)
	b.wake()
}

// of is the room of a job; nil: nothing limits it.
func (rs *rooms) of(j *job) *room {
	if !rs.limiting.Load() {
		return nil
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	var key roomKey
	limits := rs.tasks[j.request.Task]
	if len(limits) > 0 {
		key.task = j.request.Task
	}
	if more := rs.queues[j.delivery.Queue]; len(more) > 0 {
		key.queue = j.delivery.Queue
		limits = append(limits[:len(limits):len(limits)], more...)
	}
	if len(limits) == 0 {
		return nil
	}
	r := rs.rooms[key]
	if r == nil {
		r = &room{rooms: rs, limits: limits, woken: make(chan struct{}, 1)}
		rs.rooms[key] = r
		for _, l := range limits {
			l.held().rooms = append(l.held().rooms, r)
		}
	}
	return r
}

// enter takes a job in whose time has come, which leaves at once if it may.
func (r *room) enter(ctx context.Context, j *job) {
	rs, now := r.rooms, time.Now()
	rs.mu.Lock()
	if len(r.jobs) == 0 && !r.leaving && r.wait(now) == 0 {
		r.take(j, now)
		rs.mu.Unlock()
		rs.w.enqueue(ctx, j)
		return
	}
	wait, each := r.expected(len(r.jobs), now)
	if r.full(j, wait, now) {
		back := r.sendAway(j, wait, each, now)
		rs.mu.Unlock()
		rs.w.postpone(j, back)
		return
	}
	j.entered = now
	r.append(j)
	first := len(r.jobs) == 1
	if !r.running {
		r.running = true
		rs.start(r.run)
	}
	rs.mu.Unlock()
	rs.w.outside(j.delivery)
	if first {
		r.wake()
	}
}

// ended frees what a job's run has taken.
func (rs *rooms) ended(j *job) {
	if j.limits == nil {
		return
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	now := time.Now()
	for _, l := range j.limits {
		if l.ended(now, now.Sub(j.let)) {
			l.held().wake()
		}
	}
	j.limits = nil
}

// Scheduled is a task that the worker holds until its time.
type Scheduled struct {
	Request *protocol.Request // read only
	Queue   string
	ETA     time.Time // the task's own, or when a limit is expected to let it run
}

// Scheduled lists the tasks that the worker holds until their time, sorted by it: those whose eta has not come, and those
// that a limit holds back. What rests in the broker is not among them. Celery's inspect scheduled shows the former only.
func (w *Worker) Scheduled() []Scheduled {
	waiting := w.waitingJobs()
	all := make([]Scheduled, len(waiting))
	for i, x := range waiting {
		all[i] = Scheduled{x.job.request, x.job.delivery.Queue, x.eta}
	}
	return all
}

// waitingJobs are the jobs that wait in the worker for their time, sorted by it.
func (w *Worker) waitingJobs() []parked {
	all := w.parking.scheduled()
	now := time.Now()
	w.rooms.mu.Lock()
	for _, r := range w.rooms.rooms {
		for i, j := range r.jobs {
			wait, _ := r.expected(i, now)
			all = append(all, parked{job: j, eta: now.Add(wait)})
		}
	}
	w.rooms.mu.Unlock()
	slices.SortFunc(all, func(a, b parked) int { return a.eta.Compare(b.eta) })
	return all
}
