package worker

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gelery/gelery/protocol/value"
)

// The commands that only look, with Celery's answers.

// activeCommand lists what runs. With safe, arguments are Python's repr.
func activeCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	infos := w.taskInfos(a.truth("safe"))
	out := []any{}
	for _, e := range w.oldestRuns() {
		out = append(out, infos.running(e))
	}
	return out, nil
}

// oldestRuns are the executions whose outcome is not decided, the oldest first, at most as many as a reply lists.
func (w *Worker) oldestRuns() []*execution {
	runs := w.active.undecided()
	slices.SortFunc(runs, func(a, b *execution) int { return a.since().Compare(b.since()) })
	return runs[:min(len(runs), maxListed)]
}

// since is when the run began; zero: it has not.
func (e *execution) since() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.begun
}

// reservedCommand lists what waits for a slot.
func reservedCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	infos := w.taskInfos(false)
	out := []any{}
	jobs := w.reserved.all()
	for _, j := range jobs[:min(len(jobs), maxListed)] {
		out = append(out, infos.of(j))
	}
	return out, nil
}

// scheduledCommand lists what waits for its time: Celery's tasks with an eta, also those that this worker has given to the broker
// until then, and those that a limit holds back.
func scheduledCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	infos := w.taskInfos(false)
	out := []any{}
	waiting := w.waitingJobs()
	held := make(map[*job]bool, len(waiting))
	for _, x := range waiting {
		held[x.job] = true // which the broker did not take
	}
	for _, x := range w.delaying.handed.waiting() {
		if !held[x.job] {
			waiting = append(waiting, x)
		}
	}
	slices.SortStableFunc(waiting, func(a, b parked) int { return a.eta.Compare(b.eta) })
	for _, x := range waiting[:min(len(waiting), maxListed)] {
		out = append(out, map[string]any{"eta": isoText(x.eta.UTC(), true), "priority": int64(scheduledPriority), "request": infos.of(x.job)})
	}
	return out, nil
}

// scheduledPriority is what Celery's timer gives to tasks with an eta.
const scheduledPriority = 6

// revokedCommand lists the ids that are revoked, the oldest first.
func revokedCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	ids := w.revoked.listed(time.Now())
	out := make([]any, len(ids))
	for i, r := range ids {
		out[i] = r.member
	}
	return out, nil
}

// listed are the revoked ids, the oldest first.
func (r *revoked) listed(now time.Time) []revocation {
	r.mu.Lock()
	r.ids.purge(now)
	all := make([]revocation, 0, r.ids.len())
	for name, at := range r.ids.all() {
		all = append(all, revocation{name, at})
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b revocation) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.member, b.member)) })
	return all
}

// queryTaskCommand tells of tasks by id whether they run, wait for a slot or, as "ready", have just ended. Others are left out.
func queryTaskCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	ids, err := a.names("ids")
	if err != nil {
		return nil, err
	}
	wanted := make(map[string]bool, len(ids))
	for _, id := range ids {
		wanted[id] = true
	}
	infos, out := w.taskInfos(false), map[string]any{}
	for _, j := range w.reserved.all() {
		if wanted[j.request.ID] && len(out) < maxListed {
			out[j.request.ID] = []any{"reserved", infos.of(j)}
		}
	}
	for _, e := range w.active.all() {
		if id := e.request.ID; wanted[id] && len(out) < maxListed {
			state := "active"
			if !e.undecided() {
				state = "ready"
			}
			out[id] = []any{state, infos.running(e)}
		}
	}
	return out, nil
}

func clockCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	return map[string]any{"clock": w.clock.Add(1)}, nil
}

// memsampleCommand tells the worker's resident memory, null where that cannot be told.
func memsampleCommand(context.Context, *Worker, arguments) (any, error) {
	n := residentMemory(ownPID)
	if n == 0 {
		return nil, nil //nolint:nilnil // Celery's answer is null
	}
	return humanBytes(n), nil
}

// humanBytes is a number of bytes as Celery's memsample shows it: "56.152MB".
func humanBytes(n int64) string {
	for _, unit := range []struct {
		size int64
		name string
	}{{1 << 40, "TB"}, {1 << 30, "GB"}, {1 << 20, "MB"}, {1 << 10, "KB"}} {
		if n >= unit.size {
			return fmt.Sprintf("%.5g%s", float64(n)/float64(unit.size), unit.name)
		}
	}
	return fmt.Sprintf("%db", n)
}

// memdumpCommand tells what the Go runtime says of the memory. Celery's tells samples of the resident memory.
func memdumpCommand(context.Context, *Worker, arguments) (any, error) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	text := func(n uint64) string { return humanBytes(int64(min(n, 1<<62))) }
	return fmt.Sprintf("- rss (end): %s.\n- heap: %s in %d objects, %s from the system, next collection at %s.\n- stacks: %s, %d goroutines.\n- collections: %d.\n",
		humanBytes(residentMemory(ownPID)), text(m.HeapAlloc), m.HeapObjects, text(m.HeapSys), text(m.NextGC), text(m.StackInuse),
		runtime.NumGoroutine(), m.NumGC), nil
}

// objgraphCommand answers as a Python worker does that has not the library.
func objgraphCommand(context.Context, *Worker, arguments) (any, error) {
	return nil, pythonError("ImportError", "Requires the objgraph library")
}

// poolRestartCommand answers as a Python worker does that has not been started with worker_pool_restarts.
func poolRestartCommand(context.Context, *Worker, arguments) (any, error) {
	return nil, pythonError("ValueError", "Pool restarts not enabled")
}

// registeredCommand lists the tasks, with those of the attributes asked for that they have.
func registeredCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	items := []string{"exchange", "routing_key", "rate_limit"}
	if len(listOf(a.values["taskinfoitems"])) > 0 { // celery sends an empty list for none
		var err error
		if items, err = a.names("taskinfoitems"); err != nil {
			return nil, err
		}
	}
	names := make([]string, 0, len(w.tasks))
	for name := range w.tasks {
		if a.truth("builtins") || !strings.HasPrefix(name, "celery.") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	out := make([]any, len(names))
	for i, name := range names {
		attributes := w.taskAttributes(w.tasks[name])
		var shown []string
		for _, item := range items {
			if v := attributes[item]; v != nil {
				shown = append(shown, item+"="+asStr(v))
			}
		}
		out[i] = name
		if len(shown) > 0 {
			out[i] = name + " [" + strings.Join(shown, " ") + "]"
		}
	}
	return out, nil
}

// asStr is Python's str of a value.
func asStr(v any) string {
	if s, isText := v.(string); isText {
		return s
	}
	return value.Repr(v, longestText)
}

// taskAttributes are the attributes of Celery's Task that a task has here, None left out.
func (w *Worker) taskAttributes(t *registered) map[string]any {
	d, client := &t.Defaults, w.client.Config()
	either := func(own *bool, otherwise bool) bool {
		if own != nil {
			return *own
		}
		return otherwise
	}
	m := map[string]any{"name": t.Name, "serializer": orElse(d.Serializer, client.Serializer),
		"ignore_result": either(d.IgnoreResult, client.IgnoreResult), "track_started": either(d.TrackStarted, w.config.TrackStarted),
		"acks_late":             !either(d.AckEarly, w.config.AckEarly),
		"acks_on_failure":       either(d.AckOnFailure, either(w.config.AckOnFailure, true)),
		"acks_on_timeout":       either(d.AckOnTimeout, either(w.config.AckOnTimeout, true)),
		"reject_on_worker_lost": either(d.RejectOnWorkerLost, true), "store_errors_even_if_ignored": w.config.StoreErrorsEvenIfIgnored,
		"max_retries": int64(3), "default_retry_delay": int64(180)}
	for name, text := range map[string]string{"exchange": d.Exchange, "routing_key": d.RoutingKey, "queue": d.Queue, "compression": d.Compression,
		"rate_limit": w.rateOf(t)} {
		if text != "" {
			m[name] = text
		}
	}
	for name, limit := range map[string]time.Duration{"expires": d.Expires, "time_limit": d.TimeLimit, "soft_time_limit": d.SoftTimeLimit} {
		if limit > 0 {
			m[name] = secondsValue(limit)
		}
	}
	if d.Priority != nil {
		m["priority"] = int64(*d.Priority)
	}
	if n := d.MaxRetries; n != nil {
		m["max_retries"] = int64(*n)
		if *n < 0 {
			delete(m, "max_retries")
		}
	}
	if d.RetryDelay != nil {
		m["default_retry_delay"] = secondsValue(*d.RetryDelay)
	}
	return m
}

// rateOf is a task's rate limit as it was written; "" for none.
func (w *Worker) rateOf(t *registered) string {
	rate := w.config.DefaultRateLimit
	if own := t.Defaults.RateLimit; own != nil {
		rate = *own
	}
	if set := t.rate.Load(); set != nil {
		rate = *set
	}
	if rate == "0" || w.config.DisableRateLimits {
		return ""
	}
	return rate
}

// secondsValue is a time in seconds, a whole number if it is one.
func secondsValue(d time.Duration) any {
	if d%time.Second == 0 {
		return int64(d / time.Second)
	}
	return d.Seconds()
}
