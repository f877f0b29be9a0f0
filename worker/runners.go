package worker

import (
	"context"
	"sync"
)

// runners are the goroutines that user code runs in, one for each run under way, apart from the slots that wait for them:
// a run that is given up keeps its goroutine, and runtime.Goexit ends no slot. They are used again, because a new one
// would have to grow its stack from the smallest size for every task.
type runners struct {
	mu     sync.Mutex
	idle   []*runner // the last one is the next, because its stack is still in the cache
	closed bool
}

// runner is one of them. Before it tells that a run has ended, it is idle again.
type runner struct {
	next chan run // capacity 1; closed: it ends
}

// run is an execution with the context of its task.
type run struct {
	ctx context.Context
	e   *execution
}

// dispatch runs an execution in a goroutine that is free.
func (w *Worker) dispatch(ctx context.Context, e *execution) {
	var r *runner
	rs := &w.runners
	rs.mu.Lock()
	if last := len(rs.idle) - 1; last >= 0 {
		r, rs.idle = rs.idle[last], rs.idle[:last]
	}
	rs.mu.Unlock()
	if r == nil {
		r = &runner{next: make(chan run, 1)}
		go func() {
			for next := range r.next {
				w.runIn(r, next)
			}
		}()
	}
	r.next <- run{ctx, e}
}

// runIn runs an execution. If its code ends the goroutine, the runner is gone with it.
func (w *Worker) runIn(r *runner, x run) {
	returned := false
	var c completion
	defer func() {
		w.active.remove(x.e)
		if returned {
			w.runners.free(r)
		} else {
			c = failure(errGoexit, nil)
		}
		x.e.returned(c)
	}()
	c = w.pool.run(x.ctx, x.e)
	returned = true
}

// free takes a runner back.
func (rs *runners) free(r *runner) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.closed {
		close(r.next)
		return
	}
	rs.idle = append(rs.idle, r)
}

// close ends the runners, those that are busy when they are free.
func (rs *runners) close() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.closed = true
	for _, r := range rs.idle {
		close(r.next)
	}
	rs.idle = nil
}
