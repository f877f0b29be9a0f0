package worker

import (
	"context"
	"maps"
	"slices"

	"github.com/gelery/gelery/transport"
)

// helloCommand answers a Python worker that starts and asks its neighbours what it has missed: Celery's mingle. Each side
// tells the other what is revoked. The times are only for the asker to let go of the oldest by; its own are of a clock that
// no other machine has.
func helloCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	from, err := a.requiredText("from_node")
	if err != nil || from == w.config.Hostname {
		return nil, err
	}
	w.log.Info("sync with " + from)
	if theirs, ok := a.values["revoked"].(map[string]any); ok && len(theirs) > 0 {
		w.revoked.heard(transport.RevokedSet, slices.Collect(maps.Keys(theirs))...)
	}
	ours := map[string]any{}
	w.revoked.mu.RLock()
	for id, at := range w.revoked.ids.all() {
		ours[id] = []any{float64(at.UnixMicro()) / 1e6, id}
	}
	w.revoked.mu.RUnlock()
	return map[string]any{"revoked": ours, "clock": w.clock.Add(1)}, nil
}
