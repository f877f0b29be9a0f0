package monitor

import (
	"context"
	"time"
)

// The commands that do something: Celery's app.control. Each returns an answer of each worker, by node name: the text of
// Celery's {"ok": text}. A worker that does not do it answers with a *RemoteError.

// Revoke tells workers not to run the tasks. Where all workers must know, those included that are away now, use
// task.Client.Revoke, which asks for no reply.
func (c *Control) Revoke(ctx context.Context, ids ...string) ([]Answer[string], error) {
	return Collect[string](ctx, c, "revoke", map[string]any{"task_id": ids, "terminate": false, "signal": "SIGTERM"})
}

// Terminate is Revoke that also ends the tasks that run, with a signal, "SIGTERM" if it is "". See task.Terminate for what a Go worker
// does.
func (c *Control) Terminate(ctx context.Context, signal string, ids ...string) ([]Answer[string], error) {
	if signal == "" {
		signal = "SIGTERM"
	}
	return Collect[string](ctx, c, "revoke", map[string]any{"task_id": ids, "terminate": true, "signal": signal})
}

// RevokeByStampedHeaders revokes the tasks that carry one of the stamps, each a header with the values that are meant. With
// terminate those that run are ended, too. Python workers know it since 5.3.
func (c *Control) RevokeByStampedHeaders(ctx context.Context, headers map[string][]string, terminate bool) ([]Answer[string], error) {
	return Collect[string](ctx, c, "revoke_by_stamped_headers",
		map[string]any{"headers": headers, "terminate": terminate, "signal": "SIGTERM"})
}

// RateLimit sets how often each worker begins a task: "10/s", "100/m", "5/h", "0" for no limit.
func (c *Control) RateLimit(ctx context.Context, task, limit string) ([]Answer[string], error) {
	return Collect[string](ctx, c, "rate_limit", map[string]any{"task_name": task, "rate_limit": limit})
}

// TimeLimit sets the time limits of a task. 0: none.
func (c *Control) TimeLimit(ctx context.Context, task string, soft, hard time.Duration) ([]Answer[string], error) {
	limit := func(d time.Duration) any {
		if d == 0 {
			return nil
		}
		return d.Seconds()
	}
	return Collect[string](ctx, c, "time_limit", map[string]any{"task_name": task, "soft": limit(soft), "hard": limit(hard)})
}

// AddConsumer lets workers receive from one more queue. What is "" of exchange, its type ("direct") and routing key is as
// the worker's settings, or the queue's name, have it.
func (c *Control) AddConsumer(ctx context.Context, queue, exchange, exchangeType, routingKey string) ([]Answer[string], error) {
	arguments := map[string]any{"queue": queue, "exchange": nil, "exchange_type": "direct", "routing_key": nil}
	for name, text := range map[string]string{"exchange": exchange, "exchange_type": exchangeType, "routing_key": routingKey} {
		if text != "" {
			arguments[name] = text
		}
	}
	return Collect[string](ctx, c, "add_consumer", arguments)
}

// CancelConsumer lets workers receive from a queue no longer.
func (c *Control) CancelConsumer(ctx context.Context, queue string) ([]Answer[string], error) {
	return Collect[string](ctx, c, "cancel_consumer", map[string]any{"queue": queue})
}

// PoolGrow gives the pools n more slots.
func (c *Control) PoolGrow(ctx context.Context, n int) ([]Answer[string], error) {
	return Collect[string](ctx, c, "pool_grow", map[string]any{"n": n})
}

// PoolShrink takes n slots from the pools.
func (c *Control) PoolShrink(ctx context.Context, n int) ([]Answer[string], error) {
	return Collect[string](ctx, c, "pool_shrink", map[string]any{"n": n})
}

// Autoscale sets the bounds of workers that scale themselves.
func (c *Control) Autoscale(ctx context.Context, most, least int) ([]Answer[string], error) {
	return Collect[string](ctx, c, "autoscale", map[string]any{"max": most, "min": least})
}

// PoolRestart restarts the child processes of Python workers that run with worker_pool_restarts. Modules are imported before, with
// reload again.
func (c *Control) PoolRestart(ctx context.Context, modules []string, reload bool) ([]Answer[string], error) {
	return Collect[string](ctx, c, "pool_restart", map[string]any{"modules": modules, "reload": reload, "reloader": nil})
}

// EnableEvents lets workers send events of tasks.
func (c *Control) EnableEvents(ctx context.Context) ([]Answer[string], error) {
	return Collect[string](ctx, c, "enable_events", nil)
}

// DisableEvents ends what EnableEvents began. A Python worker that was started with -E ignores it.
func (c *Control) DisableEvents(ctx context.Context) ([]Answer[string], error) {
	return Collect[string](ctx, c, "disable_events", nil)
}

// Heartbeat lets workers send a heartbeat event at once. It waits for no reply, there is none.
func (c *Control) Heartbeat(ctx context.Context) error { return c.Tell(ctx, "heartbeat", nil) }

// Shutdown lets workers stop warm: what runs is ended well. It waits for no reply: Python workers give none.
func (c *Control) Shutdown(ctx context.Context) error { return c.Tell(ctx, "shutdown", nil) }
