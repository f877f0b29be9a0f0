package worker

import "time"

// Stats are a worker's figures, as Celery's inspect stats shows them. They are counted from the start of the process.
type Stats struct {
	Concurrency int              // slots: pool.max-concurrency
	Running     int              // slots taken, by abandoned runs too
	Abandoned   int              // runs that were given up 2 s ago or longer and still go on
	Prefetch    int              // most messages held that are not parked: prefetch_count
	Total       map[string]int64 // runs begun, by the name of the task; those never run are left out: total

	Processes        []int // pids of those that tasks run in, sorted: pool.processes
	MaxTasksPerChild int   // 0: no bound

	TimeLimit, SoftTimeLimit time.Duration // the worker's own: pool.timeouts, which has the soft one first

	Autoscale *AutoscaleStats // nil: it is off

	Succeeded, Failed, Quarantined int64
}

// AutoscaleStats is autoscaler in Celery's stats.
type AutoscaleStats struct {
	Min, Max int
	Current  int // slots
	Jobs     int // running, or waiting for a slot: qty
}

// Stats returns the worker's figures of this moment. It may be called at any time.
func (w *Worker) Stats() Stats {
	s := Stats{
		Running: int(w.slots.busy.Load()), Abandoned: int(w.abandoned.Load()), Prefetch: w.window.bound(), Total: map[string]int64{},
		TimeLimit: w.config.TimeLimit, SoftTimeLimit: w.config.SoftTimeLimit,
		Processes: w.pool.pids(), MaxTasksPerChild: w.config.MaxTasksPerChild,
		Succeeded: w.succeeded.Load(), Failed: w.failed.Load(), Quarantined: w.quarantined.Load(),
	}
	for name, t := range w.tasks {
		if n := t.total.Load(); n > 0 {
			s.Total[name] = n
		}
	}
	w.slots.mu.Lock()
	defer w.slots.mu.Unlock()
	s.Concurrency = w.slots.size
	if a := w.autoscaler; a != nil {
		s.Autoscale = &AutoscaleStats{Min: a.min, Max: a.max, Current: s.Concurrency, Jobs: int(a.jobs.Load())}
	}
	return s
}
