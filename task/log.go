package task

import (
	"context"
	"log/slog"
)

// LogName is the task a record is about, by name and id: one value among the attributes of a record or a logger, under
// the empty key. A handler that resolves it, as those of slog do, finds the attributes task and task_id; one that writes
// text may write Celery's "name[id]: " before the message instead.
type LogName struct {
	Task string // as monitors show it: the shadow name if the call has one
	ID   string
}

var _ slog.LogValuer = LogName{}

// LogValue implements [slog.LogValuer].
func (n LogName) LogValue() slog.Value {
	return slog.GroupValue(slog.String("task", n.Task), slog.String("task_id", n.ID))
}

// Logger is the logger of the task running in ctx: the worker's, with the task's name and id attached. Celery's
// get_task_logger. Outside of a task it is slog.Default().
//
//	task.Logger(ctx).Info("half done", "rows", n)
//	// [2026-01-02 03:04:05,678: INFO/MainProcess] shop.import[8c1e…]: half done rows=500
func Logger(ctx context.Context) *slog.Logger {
	info, ok := FromContext(ctx)
	if !ok {
		return slog.Default()
	}
	log := info.Logger
	switch {
	case log != nil:
	case info.Client != nil:
		log = info.Client.Config().Logger
	default:
		log = slog.Default()
	}
	return log.With(slog.Any("", LogName{Task: either(info.Shadow, info.Task), ID: info.ID}))
}
