package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// ErrAbandoned is what Run returns after it stopped by itself, because more runs than Config.MaxAbandoned were given up
// and did not end: only another process has all its slots again.
var ErrAbandoned = errors.New("worker stopped: too many tasks go on running after they were given up")

// obedience is how long code may take to return once its context is done. After it a run that was given up is abandoned.
const obedience = 2 * time.Second

// awaitGivenUp waits for code whose outcome was decided without it, so that it keeps its slot, and the
// slot's share of the window, as long as it runs. A stop does not wait for it: there is nothing to come from it.
func (w *Worker) awaitGivenUp(ctx context.Context, e *execution, running <-chan struct{}) {
	since := time.Now()
	share := max(1, w.config.PrefetchMultiplier) // what the slot will not run is for others
	w.window.take(share)
	defer w.window.free(share)
	limit := time.NewTimer(obedience)
	defer limit.Stop()
	select {
	case <-running:
		w.logLateEnd(slog.LevelInfo, e, since)
		return
	case <-ctx.Done():
		return
	case <-limit.C:
	}
	w.abandonRun(e)
	select {
	case <-running:
		w.abandoned.Add(-1)
		w.logLateEnd(slog.LevelWarn, e, since)
	case <-ctx.Done():
	}
}

// abandonRun counts a run as abandoned. If that is one too many, or none of the slots is left, the worker stops.
func (w *Worker) abandonRun(e *execution) {
	n, most := int(w.abandoned.Add(1)), w.mostAbandoned()
	if w.logs(slog.LevelError) {
		w.logTask(slog.LevelError, fmt.Sprintf("Task %s still runs %v after it was given up and keeps its slot; %d such tasks in all",
			fullName(e.request), obedience, n), e.request, TaskLog{})
	}
	if most >= 0 && n > most {
		w.log.Error("too many tasks still run after they were given up: the worker ends what it can and stops", "abandoned", n, "allowed", most)
		w.halt(ErrAbandoned)
	}
}

// mostAbandoned is how many runs may be abandoned, -1 for any number. When they have all slots, it is one less.
func (w *Worker) mostAbandoned() int {
	size := w.slots.most()
	switch most := w.config.MaxAbandoned; {
	case most < 0:
		return -1
	case most == 0:
		return min(max(1, size/2), size-1)
	default:
		return min(most, size-1)
	}
}

// logLateEnd tells that code has ended which was given up. What it returned is dropped.
func (w *Worker) logLateEnd(level slog.Level, e *execution, since time.Time) {
	if w.logs(level) {
		w.logTask(level, fmt.Sprintf("Task %s ended %.3fs after it was given up", fullName(e.request), time.Since(since).Seconds()),
			e.request, TaskLog{})
	}
}
