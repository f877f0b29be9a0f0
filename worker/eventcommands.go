package worker

import (
	"context"

	"github.com/gelery/gelery/protocol"
)

func enableEventsCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	if w.events.tasks.Swap(true) {
		return ok("task events already enabled"), nil
	}
	w.log.Info("Events of group {task} enabled by remote.")
	return ok("task events enabled"), nil
}

// disableEventsCommand turns task events off whatever has turned them on. A Python worker with -E keeps sending them.
func disableEventsCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	if !w.events.tasks.Swap(false) {
		return ok("task events already disabled"), nil
	}
	w.log.Info("Events of group {task} disabled by remote.")
	return ok("task events disabled"), nil
}

// heartbeatCommand sends a heartbeat at once, as a monitor asks for that has just begun. It has what any other has; Celery's
// tells an interval of 5 s and no figures.
func heartbeatCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	if w.events.interval > 0 {
		w.events.tellWorker(w.workerEvent(protocol.WorkerHeartbeat))
	}
	return nil, nil //nolint:nilnil // Celery's answer is null
}
