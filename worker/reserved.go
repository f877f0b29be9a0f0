package worker

import (
	"os"
	"sync"
)

// reserved are the jobs on their way to a slot, in their order: Celery's reserved requests without the active ones. It is a
// list of the jobs themselves, so that a task costs it no allocation. Its zero value is empty.
type reserved struct {
	mu          sync.Mutex
	first, last *job
	n           int
}

// place is where a job is among the reserved ones.
type place struct {
	in         bool // of whoever has the job; the rest is under the list's lock
	prev, next *job
}

// add puts a job at the end.
func (r *reserved) add(j *job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	j.place = place{in: true, prev: r.last}
	if r.last == nil {
		r.first = j
	} else {
		r.last.place.next = j
	}
	r.last = j
	r.n++
}

// remove takes a job out, if it is there.
func (r *reserved) remove(j *job) {
	if !j.place.in {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := j.place.prev; p != nil {
		p.place.next = j.place.next
	} else {
		r.first = j.place.next
	}
	if n := j.place.next; n != nil {
		n.place.prev = j.place.prev
	} else {
		r.last = j.place.prev
	}
	j.place = place{}
	r.n--
}

// all are the jobs, the one that has waited longest first.
func (r *reserved) all() []*job {
	r.mu.Lock()
	defer r.mu.Unlock()
	jobs := make([]*job, 0, r.n)
	for j := r.first; j != nil; j = j.place.next {
		jobs = append(jobs, j)
	}
	return jobs
}

// ownPID is this process: asking the kernel for each task took 4 % of the CPU time of empty ones.
var ownPID = os.Getpid()

// pid is the process that a job runs in.
func (j *job) pid() int {
	if j.child != nil {
		return j.child.pid()
	}
	return ownPID
}
