package django

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/task"
)

// taskColumns are those of PeriodicTask that are read, in the order of taskRow.scan.
var taskColumns = []string{"id", "name", "task", "args", "kwargs", "headers", "queue", "exchange", "routing_key", "priority", "expire_seconds",
	"one_off", "enabled", "interval_id", "crontab_id", "solar_id", "clocked_id", "expires", "start_time", "last_run_at", "total_run_count", "date_changed"}

// firstTime is the first of taskColumns that are moments.
const firstTime = 17

// taskRow is a row of PeriodicTask.
type taskRow struct {
	id int64
	definition
	state
	ran state // what the leader knows better, see keep
}

// definition is what a person has written. It is comparable.
type definition struct {
	name, task, args, kwargs, headers string
	queue, exchange, routingKey       sql.NullString
	priority, expireSeconds           sql.NullInt64
	oneOff, enabled                   bool
	schedule                          [noKind]sql.NullInt64
	expires, start                    time.Time
	wrong                             string // what stands in a column of times and is none
}

// state is what became of it.
type state struct {
	lastRunAt time.Time // zero: NULL
	count     int64
	changed   time.Time // date_changed
}

// known is what became of the row, as far as is known.
func (r *taskRow) known() state {
	if r.ran.count > r.count {
		return r.ran
	}
	return r.state
}

// keep takes over what is known of a row as it was before. Who changes a row with Django writes all of its columns, as they were
// when it was read: what ran meanwhile seems not to have run. What goes back in both its time and its count is taken for that.
func (r *taskRow) keep(before *taskRow) {
	if k := before.known(); !r.lastRunAt.IsZero() && r.lastRunAt.Before(k.lastRunAt) && r.count < k.count {
		r.ran = k
	}
}

func (d dialect) scanTask(scan func(into ...any) error) (*taskRow, error) {
	var r taskRow
	var headers sql.NullString
	var expires, start, last, changed column
	err := scan(&r.id, &r.name, &r.task, &r.args, &r.kwargs, &headers, &r.queue, &r.exchange, &r.routingKey, &r.priority, &r.expireSeconds,
		&r.oneOff, &r.enabled, &r.schedule[interval], &r.schedule[crontab], &r.schedule[solar], &r.schedule[clocked], &expires, &start, &last, &r.count, &changed)
	r.headers = headers.String
	r.expires, r.start, r.lastRunAt = d.readTime(expires), d.readTime(start), d.readTime(last)
	r.changed = d.readStamp(changed)
	for i, c := range [...]*column{&expires, &start, &last, &changed} {
		if c.wrong != "" {
			r.wrong = [...]string{"expires", "start_time", "last_run_at", "date_changed"}[i] + " " + c.wrong
		}
	}
	return &r, err
}

// readTasks reads rows of PeriodicTask; where says which.
func (s *Store) readTasks(ctx context.Context, r runner, found func(*taskRow) error, where ...any) error {
	parts := []any{"SELECT "}
	for i, c := range taskColumns {
		if i > 0 {
			parts = append(parts, ", ")
		}
		if i >= firstTime && c != "total_run_count" {
			parts = append(parts, s.dialect.raw)
		}
		parts = append(parts, c)
	}
	parts = append(append(parts, " FROM ", taskTable), where...)
	return s.dialect.query(ctx, r, func(scan func(...any) error) error {
		row, err := s.dialect.scanTask(scan)
		if err != nil {
			return fmt.Errorf("table %s: %w", taskTable, err)
		}
		return found(row)
	}, parts...)
}

// kind is which schedule the row has: the first, as in Python.
func (r *taskRow) kind() kind {
	for k, id := range r.schedule {
		if id.Valid {
			return kind(k)
		}
	}
	return noKind
}

// spent tells that the row has run once and was to run no more: Python's beat disables it when it looks at it next.
func (r *taskRow) spent() bool { return r.oneOff && r.count > 0 }

// record makes an entry of the row.
func (s *Store) record(r *taskRow, all schedules) (scheduler.Record, error) {
	wrong := func(field string, err error) (scheduler.Record, error) {
		return scheduler.Record{}, &scheduler.EntryError{Entry: r.name, Field: field, Err: err}
	}
	k := r.kind()
	if r.wrong != "" {
		return wrong("", fmt.Errorf("%s is no time", r.wrong))
	}
	if k == noKind {
		return wrong("schedule", errors.New("the row has none of interval, crontab, solar and clocked"))
	}
	row, ok := all[k][r.schedule[k].Int64]
	switch {
	case !ok:
		return wrong("schedule", fmt.Errorf("there is no row %d in %s", r.schedule[k].Int64, scheduleTables[k]))
	case row.err != nil:
		return wrong("schedule", row.err)
	}
	sig, field, err := r.signature(s.config.KeepExpired)
	if err != nil {
		return wrong(field, err)
	}
	e := &scheduler.Entry{Name: r.name, Schedule: row.schedule, Task: sig, Paused: !r.enabled, OneOff: r.oneOff && k != clocked,
		Start: r.start, End: r.expires, KeepExpired: s.config.KeepExpired}
	if k == crontab {
		e.Deadline = s.config.Deadline
	}
	return scheduler.Record{Entry: e, State: r.lastState(row.schedule), Source: "django"}, e.Check()
}

// lastState is the state by which the entry goes on. Without last_run_at that is the time when the row was changed last; but what
// is due since its start, and what comes once, comes however long ago it was, as in Python.
func (r *taskRow) lastState(schedule scheduler.Schedule) scheduler.State {
	known := r.known()
	last := known.lastRunAt
	if last.IsZero() {
		last = r.changed
		if !r.start.IsZero() && r.start.Before(last) {
			last = r.start.Add(-time.Microsecond)
		}
		if once, ok := schedule.(scheduler.Clocked); ok && !once.At.After(last) {
			last = once.At.Add(-time.Microsecond)
		}
	}
	return scheduler.State{LastRunAt: last, TotalRunCount: known.count}
}

// signature makes what the row sends, or says which field is wrong. To what would not expire by itself the end of the row is its
// end, as in Python.
func (r *taskRow) signature(keepExpired bool) (sig task.Signature, field string, err error) {
	wire := protocol.Signature{Task: r.task, Args: []any{}, Kwargs: map[string]any{}}
	if r.task == "" {
		return sig, "task", errors.New("it is empty")
	}
	if wire.Args, err = document(r.args, wire.Args); err != nil {
		return sig, "args", err
	}
	if wire.Kwargs, err = document(r.kwargs, wire.Kwargs); err != nil {
		return sig, "kwargs", err
	}
	headers, err := document(r.headers, map[string]any(nil))
	if err != nil {
		return sig, "headers", err
	}
	wire.Options = r.options(headers, keepExpired)
	if sig = task.SignatureOf(wire); len(wire.Options) == 0 {
		return sig, "", nil
	}
	return sig, "options", sig.CheckOptions()
}

// options are those of what the row sends; nil: none.
func (r *taskRow) options(headers map[string]any, keepExpired bool) (options map[string]any) {
	set := func(name string, v any) {
		if options == nil {
			options = map[string]any{}
		}
		options[name] = v
	}
	if len(headers) > 0 {
		set("headers", headers)
	}
	if r.queue.String != "" {
		set("queue", r.queue.String)
	}
	if r.exchange.String != "" {
		set("exchange", r.exchange.String)
	}
	if r.routingKey.String != "" {
		set("routing_key", r.routingKey.String)
	}
	if r.priority.Valid {
		set("priority", r.priority.Int64)
	}
	switch {
	case !r.expires.IsZero() && keepExpired:
		set("expires", protocol.FormatTime(r.expires))
	case r.expires.IsZero() && r.expireSeconds.Int64 > 0: // 0 is none, as in Python
		set("expires", r.expireSeconds.Int64)
	}
	return options
}

// document reads JSON text; an empty one is the fallback.
func document[T any](text string, fallback T) (T, error) {
	_, list := any(fallback).([]any)
	if text == "" || list && text == "[]" || !list && text == "{}" {
		return fallback, nil
	}
	v, err := serialization.DecodeJSON([]byte(text))
	if err != nil {
		return fallback, err
	}
	if v == nil {
		return fallback, nil
	}
	t, ok := v.(T)
	if !ok {
		return fallback, fmt.Errorf("%.60q is not what it has to be: a list for args, an object for kwargs and headers", text)
	}
	return t, nil
}
