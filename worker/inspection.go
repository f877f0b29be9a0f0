package worker

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
)

// inspectionCommands are the commands by which a worker shows itself, in the shapes that `celery inspect` and Flower read.
// What it holds in order is copied under its locks; nothing waits for a task.
var inspectionCommands = map[string]controlCommand{
	"active": {run: activeCommand}, "dump_active": {run: activeCommand},
	"reserved": {run: reservedCommand}, "dump_reserved": {run: reservedCommand},
	"scheduled": {run: scheduledCommand}, "dump_schedule": {run: scheduledCommand},
	"registered": {run: registeredCommand}, "dump_tasks": {run: registeredCommand},
	"revoked": {run: revokedCommand}, "dump_revoked": {run: revokedCommand},
	"conf": {run: confCommand}, "dump_conf": {run: confCommand},
	"query_task": {run: queryTaskCommand},
	"stats":      {run: statsCommand},
	"clock":      {run: clockCommand},
	"report":     {run: reportCommand},
}

func init() { maps.Copy(controlCommands, inspectionCommands) } // they are too many for one table

// requestInfo shows a task as kombu's JSON can hold it: Celery's Request.info.
func (w *Worker) requestInfo(j *job, begun time.Time, safe bool) map[string]any {
	r := j.request
	where := r.Properties.DeliveryInfo
	info := map[string]any{
		"id": r.ID, "name": r.Task, "type": r.Task, "args": r.Args, "kwargs": r.Kwargs, "hostname": w.config.Hostname,
		"time_start": nil, "acknowledged": false, "worker_pid": nil,
		"delivery_info": map[string]any{"exchange": where.Exchange, "routing_key": where.RoutingKey,
			"priority": int64(r.Properties.Priority), "redelivered": j.delivery.Redelivered},
	}
	if safe {
		info["args"], info["kwargs"] = r.ArgsRepr, r.KwargsRepr
	}
	if !begun.IsZero() {
		info["time_start"] = float64(begun.UnixMicro()) / 1e6
		info["acknowledged"] = j.task != nil && w.acksEarly(j)
		info["worker_pid"] = int64(os.Getpid())
	}
	return info
}

// under are the executions whose code has begun and whose outcome is not decided, the oldest first.
func (a *active) under() []*execution {
	a.mu.Lock()
	all := slices.Collect(maps.Keys(a.runs))
	a.mu.Unlock()
	all = slices.DeleteFunc(all, func(e *execution) bool { return e.beganAt().IsZero() || !e.undecided() })
	slices.SortFunc(all, func(x, y *execution) int { return x.beganAt().Compare(y.beganAt()) })
	return all
}

func activeCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	out := []any{}
	for _, e := range w.active.under() {
		out = append(out, w.requestInfo(e.job, e.beganAt(), a.truth("safe")))
	}
	return out, nil
}

// reservedCommand shows what a limit holds back. What waits for a slot alone is in a channel, which nobody can look into.
func reservedCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	out := []any{}
	for _, j := range w.rooms.waiting() {
		out = append(out, w.requestInfo(j, time.Time{}, false))
	}
	return out, nil
}

// schedulePriority is the priority of everything in the schedule of a Python worker.
const schedulePriority = 6

func scheduledCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	jobs := w.parking.waiting()
	out := make([]any, 0, len(jobs))
	for _, j := range jobs {
		eta := any(nil)
		if t, ok := j.request.ETATime(); ok {
			eta = protocol.FormatTime(t)
		}
		out = append(out, map[string]any{"eta": eta, "priority": int64(schedulePriority), "request": w.requestInfo(j, time.Time{}, false)})
	}
	return out, nil
}

func queryTaskCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	ids, err := a.names("ids")
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	for _, j := range append(w.parking.waiting(), w.rooms.waiting()...) {
		if slices.Contains(ids, j.request.ID) {
			out[j.request.ID] = []any{"reserved", w.requestInfo(j, time.Time{}, false)}
		}
	}
	for _, e := range w.active.under() {
		if slices.Contains(ids, e.request.ID) {
			out[e.request.ID] = []any{"active", w.requestInfo(e.job, e.beganAt(), false)}
		}
	}
	return out, nil
}

// registeredCommand lists the tasks by name, each with those of its attributes that are asked for and that it has.
func registeredCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	items := []string{"exchange", "routing_key", "rate_limit"}
	if a.truth("taskinfoitems") {
		var err error
		if items, err = a.names("taskinfoitems"); err != nil {
			return nil, err
		}
	}
	builtins := a.truth("builtins")
	out := []any{}
	for _, name := range slices.Sorted(maps.Keys(w.tasks)) {
		if strings.HasPrefix(name, "celery.") && !builtins {
			continue
		}
		attributes := w.tasks[name].attributes()
		var shown []string
		for _, item := range items {
			if v, has := attributes[item]; has {
				shown = append(shown, item+"="+v)
			}
		}
		if len(shown) > 0 {
			name += " [" + strings.Join(shown, " ") + "]"
		}
		out = append(out, name)
	}
	return out, nil
}

// attributes are what can be asked of a task, under the names of Celery's attributes.
func (t *registered) attributes() map[string]string {
	d := &t.Defaults
	out := map[string]string{"name": t.Name, "max_retries": "3"}
	for name, v := range map[string]string{"exchange": d.Exchange, "routing_key": d.RoutingKey, "queue": d.Queue, "serializer": d.Serializer, "compression": d.Compression} {
		if v != "" {
			out[name] = v
		}
	}
	if d.RateLimit != nil {
		out["rate_limit"] = *d.RateLimit
	}
	if d.MaxRetries != nil {
		out["max_retries"] = strconv.Itoa(*d.MaxRetries)
	}
	for name, limit := range map[string]time.Duration{"time_limit": d.TimeLimit, "soft_time_limit": d.SoftTimeLimit} {
		if limit > 0 {
			out[name] = strconv.FormatFloat(limit.Seconds(), 'f', -1, 64)
		}
	}
	if d.Priority != nil {
		out["priority"] = strconv.Itoa(*d.Priority)
	}
	return out
}

func revokedCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	w.revoked.mu.RLock()
	defer w.revoked.mu.RUnlock()
	out := []any{}
	for _, id := range slices.Sorted(maps.Keys(w.revoked.ids.all())) {
		out = append(out, id)
	}
	return out, nil
}

func clockCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	return map[string]any{"clock": w.clock.Load()}, nil
}

func statsCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	s := w.Stats()
	total := make(map[string]any, len(s.Total))
	for name, n := range s.Total {
		total[name] = n
	}
	processes := make([]any, len(s.Processes))
	for i, pid := range s.Processes {
		processes[i] = int64(pid)
	}
	children := any("N/A")
	if s.MaxTasksPerChild > 0 {
		children = int64(s.MaxTasksPerChild)
	}
	out := map[string]any{
		"total": total, "pid": int64(os.Getpid()), "clock": strconv.FormatInt(w.clock.Load(), 10), "uptime": int64(time.Since(w.since).Seconds()),
		"prefetch_count": int64(s.Prefetch),
		"pool": map[string]any{"implementation": "gelery:" + w.config.Pool, "max-concurrency": int64(s.Concurrency), "processes": processes,
			"max-tasks-per-child": children, "timeouts": []any{s.SoftTimeLimit.Seconds(), s.TimeLimit.Seconds()}},
		"broker": map[string]any{"transport": scheme(w.client.Config().Broker), "url": brokerurl.Redact(w.client.Config().Broker)},
	}
	if x := s.Autoscale; x != nil {
		out["autoscaler"] = map[string]any{"min": int64(x.Min), "max": int64(x.Max), "current": int64(x.Current), "qty": int64(x.Jobs)}
	}
	return out, nil
}

// scheme is how a URL begins: the name of the transport.
func scheme(url string) string {
	name, _, _ := strings.Cut(url, ":")
	return name
}

// confCommand shows what the worker knows of its configuration, under the names of Celery's settings; passwords are hidden.
func confCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	client, c := w.client.Config(), w.config
	accept := make([]any, len(client.AcceptContent))
	for i, name := range client.AcceptContent {
		accept[i] = name
	}
	return map[string]any{
		"broker_url": brokerurl.Redact(client.Broker), "result_backend": brokerurl.Redact(client.Backend), "accept_content": accept,
		"task_default_queue": client.Queue, "task_serializer": client.Serializer, "result_serializer": client.ResultSerializer,
		"task_acks_late": !c.AckEarly, "task_track_started": c.TrackStarted, "task_ignore_result": client.IgnoreResult,
		"result_extended": c.ResultExtended, "worker_concurrency": int64(c.Concurrency), "worker_pool": c.Pool,
		"worker_prefetch_multiplier": int64(c.PrefetchMultiplier), "worker_deduplicate_successful_tasks": c.Deduplicate,
		// What Python programs look for and Go workers have no choice about.
		"enable_utc": true, "timezone": nil, "broker_heartbeat": nil, "include": []any{}, "deprecated_settings": nil,
		"worker_hijack_root_logger": false, "worker_log_color": nil,
	}, nil
}

func reportCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	client := w.client.Config()
	return ok(fmt.Sprintf("software -> gelery:%s go:%s\nplatform -> system:%s arch:%s\nsettings -> transport:%s results:%s pool:%s concurrency:%d queues:%s\n",
		version, strings.TrimPrefix(runtime.Version(), "go"), runtime.GOOS, runtime.GOARCH, brokerurl.Redact(client.Broker),
		brokerurl.Redact(client.Backend), w.config.Pool, w.config.Concurrency, value.Repr(w.config.Queues, 200))), nil
}
