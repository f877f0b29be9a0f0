package monitor

import "context"

// The commands that only look: Celery's app.control.inspect. Each returns an answer of each worker, by node name.

// Ping asks who is there. The value is "pong".
func (c *Control) Ping(ctx context.Context) ([]Answer[string], error) {
	return Collect[string](ctx, c, "ping", nil)
}

// Stats asks for the workers' figures.
func (c *Control) Stats(ctx context.Context) ([]Answer[Stats], error) {
	return Collect[Stats](ctx, c, "stats", nil)
}

// Active asks what runs.
func (c *Control) Active(ctx context.Context) ([]Answer[[]TaskInfo], error) {
	return Collect[[]TaskInfo](ctx, c, "active", nil)
}

// Reserved asks what waits for a slot.
func (c *Control) Reserved(ctx context.Context) ([]Answer[[]TaskInfo], error) {
	return Collect[[]TaskInfo](ctx, c, "reserved", nil)
}

// Scheduled asks what waits in the workers for its eta.
func (c *Control) Scheduled(ctx context.Context) ([]Answer[[]ScheduledTask], error) {
	return Collect[[]ScheduledTask](ctx, c, "scheduled", nil)
}

// Revoked asks for the ids that are revoked.
func (c *Control) Revoked(ctx context.Context) ([]Answer[[]string], error) {
	return Collect[[]string](ctx, c, "revoked", nil)
}

// Registered asks for the names of the tasks, without Celery's own. Each is followed by those of the attributes that it
// has, "tasks.add [rate_limit=10/s]"; without any given, exchange, routing_key and rate_limit are meant.
func (c *Control) Registered(ctx context.Context, attributes ...string) ([]Answer[[]string], error) {
	var arguments map[string]any
	if len(attributes) > 0 {
		arguments = map[string]any{"taskinfoitems": attributes}
	}
	return Collect[[]string](ctx, c, "registered", arguments)
}

// QueryTask asks for tasks by id. A worker tells of those that it has, by id.
func (c *Control) QueryTask(ctx context.Context, ids ...string) ([]Answer[map[string]QueriedTask], error) {
	return Collect[map[string]QueriedTask](ctx, c, "query_task", map[string]any{"ids": ids})
}

// ActiveQueues asks which queues the workers receive from.
func (c *Control) ActiveQueues(ctx context.Context) ([]Answer[[]ActiveQueue], error) {
	return Collect[[]ActiveQueue](ctx, c, "active_queues", nil)
}

// Conf asks for the settings that are not Celery's defaults, or for all. Secrets are masked by the workers.
func (c *Control) Conf(ctx context.Context, withDefaults bool) ([]Answer[map[string]any], error) {
	return Collect[map[string]any](ctx, c, "conf", map[string]any{"with_defaults": withDefaults})
}

// Clock asks for the workers' logical clocks.
func (c *Control) Clock(ctx context.Context) ([]Answer[Clock], error) {
	return Collect[Clock](ctx, c, "clock", nil)
}

// Report asks for a text about the worker that a bug report should have.
func (c *Control) Report(ctx context.Context) ([]Answer[string], error) {
	return Collect[string](ctx, c, "report", nil)
}

// Hello asks what Celery's workers tell each other at their start. From is the node name of who asks, which does not answer.
func (c *Control) Hello(ctx context.Context, from string) ([]Answer[Hello], error) {
	return Collect[Hello](ctx, c, "hello", map[string]any{"from_node": from, "revoked": map[string]any{}})
}

// Memsample asks for the resident memory, "56.152MB"; nil if the worker cannot tell.
func (c *Control) Memsample(ctx context.Context) ([]Answer[*string], error) {
	return Collect[*string](ctx, c, "memsample", nil)
}

// Memdump asks for a text about the use of memory; nil if the worker cannot tell. Samples are how many of those that
// memsample took a Python worker shows, 10 if 0.
func (c *Control) Memdump(ctx context.Context, samples int) ([]Answer[*string], error) {
	if samples == 0 {
		samples = 10
	}
	return Collect[*string](ctx, c, "memdump", map[string]any{"samples": samples})
}

// Objgraph lets Python workers write a graph of their objects of a type, and tell the file's name as "filename". Go workers
// refuse it.
func (c *Control) Objgraph(ctx context.Context, kind string, number, depth int) ([]Answer[map[string]string], error) {
	return Collect[map[string]string](ctx, c, "objgraph", map[string]any{"type": kind, "num": number, "max_depth": depth})
}
