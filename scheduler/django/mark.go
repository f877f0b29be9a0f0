package django

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/gelery/gelery/scheduler"
)

// chunk is how many rows one statement takes.
const chunk = 100

// mostRuns is the largest count that Django's column takes.
const mostRuns = 1<<31 - 1

// Pending is [scheduler.Lease]'s.
func (l *lease) Pending(ctx context.Context) ([]scheduler.Run, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	l.read.stale = true // this is asked at the beginning, and when it is not known what became of a Mark
	if err := l.flush(ctx, nil); err != nil {
		return nil, err
	}
	var runs []scheduler.Run
	err := l.within(ctx, func(ctx context.Context, tx *sql.Tx) error {
		return l.dialect.query(ctx, tx, func(scan func(...any) error) error {
			var id, text string
			if err := scan(&id, &text); err != nil {
				return err
			}
			run, err := scheduler.ParseRun([]byte(text))
			if err != nil {
				l.log.Error("beat: a run that was marked cannot be read, and is left where it is", "table", pendingTable, "id", id, "error", err)
				return nil
			}
			runs = append(runs, run)
			return nil
		}, "SELECT id, run FROM ", pendingTable)
	})
	slices.SortFunc(runs, func(a, b scheduler.Run) int { return a.Moment.Compare(b.Moment) })
	return runs, err
}

// Due is [scheduler.Lease]'s.
func (l *lease) Due(ctx context.Context, now time.Time, limit int) ([]scheduler.Record, time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if err := l.refresh(ctx, now); err != nil {
		return nil, time.Time{}, err
	}
	due, next := l.read.table.Due(now, limit)
	if len(due) == 0 {
		if err := l.flush(ctx, nil); err != nil {
			return nil, time.Time{}, err
		}
	}
	if e := l.read.ends; !e.IsZero() && (next.IsZero() || e.Before(next)) {
		next = e
	}
	return due, next, nil
}

// Counts are [scheduler.Counter]'s, as of the last look at the tables.
func (l *lease) Counts(context.Context) (scheduler.Counts, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return scheduler.Counts{Store: "django", Enabled: len(l.read.rows), Paused: l.read.disabled}, nil
}

// Mark is [scheduler.Lease]'s. ErrChanged if a row is not as it was read, perhaps because a Python beat has sent it.
func (l *lease) Mark(ctx context.Context, marks []scheduler.Mark) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	moved := make([]movedRow, 0, len(marks))
	ended := false
	for _, m := range marks {
		row := l.read.rows[m.Entry.Name]
		if had, ok := l.read.table.Get(m.Entry.Name); row == nil || !ok || had.Entry != m.Entry {
			l.read.stale = true
			return scheduler.ErrChanged
		}
		x := newMoved(row, m, now)
		ended = ended || !x.after.enabled
		moved = append(moved, x)
	}
	slices.SortFunc(moved, func(a, b movedRow) int { return byID(a.before, b.before) }) // in one order, so that two writers do not wait for each other
	var before, after time.Time
	err := l.within(ctx, func(ctx context.Context, tx *sql.Tx) (err error) {
		var changed changedRows
		for some := range slices.Chunk(moved, chunk) {
			others, err := l.others(ctx, tx, some)
			if err != nil {
				return err
			}
			changed.ids = append(changed.ids, others...)
		}
		if len(changed.ids) > 0 {
			return &changed
		}
		for some := range slices.Chunk(moved, chunk) {
			if err := l.move(ctx, tx, some, now); err != nil {
				return err
			}
		}
		if err := l.addPending(ctx, tx, marks); err != nil || !ended {
			return err
		}
		before, after, err = l.touch(ctx, tx, now)
		return err
	})
	if changed := new(changedRows); errors.As(err, &changed) {
		return l.reread(ctx, changed.ids)
	}
	if err != nil {
		l.read.stale = true
		return err
	}
	l.sent = nil
	if ended {
		l.touched(before, after)
	}
	for _, x := range moved {
		if !x.after.enabled {
			l.forget(x.after.name)
			l.read.disabled++
			continue
		}
		l.read.rows[x.after.name] = x.after
		l.read.scan.moves(x.after.id)
		x.mark.State = x.after.lastState(x.mark.Entry.Schedule)
		l.read.table.Moved(x.mark)
	}
	return nil
}

// movedRow is a row before and after a mark.
type movedRow struct {
	before, after *taskRow
	mark          scheduler.Mark
}

func newMoved(row *taskRow, m scheduler.Mark, now time.Time) movedRow {
	after := *row
	after.ran = state{}
	after.lastRunAt = m.State.LastRunAt.UTC().Truncate(time.Microsecond)
	after.count = min(m.State.TotalRunCount, mostRuns)
	after.changed = now.UTC().Truncate(time.Microsecond)
	if m.Pause {
		after.enabled, after.lastRunAt = false, time.Time{}
		if row.oneOff {
			after.count = 0
		}
	}
	return movedRow{row, &after, m}
}

// others are the ids of rows that are not as they were read.
func (l *lease) others(ctx context.Context, tx *sql.Tx, rows []movedRow) ([]int64, error) {
	d := l.dialect
	ids := make([]int64, len(rows))
	at := make(map[int64]state, len(rows))
	for i, x := range rows {
		ids[i] = x.before.id
		at[ids[i]] = x.before.state
	}
	err := d.query(ctx, tx, func(scan func(...any) error) error {
		var id, count int64
		var enabled bool
		var last, changed column
		if err := scan(&id, &enabled, &count, &last, &changed); err != nil {
			return err
		}
		if enabled && (state{d.readTime(last), count, d.readStamp(changed)}) == at[id] {
			delete(at, id)
		}
		return nil
	}, slices.Concat([]any{"SELECT id, enabled, total_run_count, last_run_at, date_changed FROM ", taskTable, " WHERE id IN ("}, list(ids), []any{")", d.lock})...)
	return slices.Sorted(maps.Keys(at)), err
}

// move writes what became of rows.
func (l *lease) move(ctx context.Context, tx *sql.Tx, rows []movedRow, now time.Time) error {
	d := l.dialect
	ids := make([]int64, len(rows))
	last, count := []any{" SET last_run_at = CASE id"}, []any{" END, total_run_count = CASE id"}
	var ended []any
	for i, x := range rows {
		ids[i] = x.before.id
		when := []any{" WHEN ", arg{x.after.id}, " THEN "}
		last = append(append(last, when...), d.time(x.after.lastRunAt))
		count = append(append(count, when...), number(x.after.count))
		if !x.after.enabled {
			ended = append(append(ended, when...), "FALSE")
		}
	}
	if len(ended) > 0 {
		ended = slices.Concat([]any{", enabled = CASE id"}, ended, []any{" ELSE TRUE END"})
	}
	_, err := d.exec(ctx, tx, slices.Concat([]any{"UPDATE ", taskTable}, last, count, []any{" END"}, ended,
		[]any{", date_changed = ", d.stamp(now), " WHERE id IN ("}, list(ids), []any{")"})...)
	return err
}

// changedRows are rows that are not as they were read.
type changedRows struct{ ids []int64 }

func (*changedRows) Error() string { return scheduler.ErrChanged.Error() }

// mostReread is how many rows are read by their ids; for more, all are read.
const mostReread = 300

// reread takes over rows that are not as they were read, and returns ErrChanged.
func (l *lease) reread(ctx context.Context, ids []int64) error {
	c := &l.read
	if len(ids) > mostReread {
		c.stale = true
		return scheduler.ErrChanged
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	var rows []*taskRow
	there := map[int64]bool{}
	for some := range slices.Chunk(ids, chunk) {
		err := l.readTasks(ctx, l.db, func(r *taskRow) error {
			there[r.id] = true
			rows = append(rows, r)
			if k := r.kind(); k != noKind {
				if _, known := c.schedules[k][r.schedule[k].Int64]; !known {
					return errors.New("its schedule is new")
				}
			}
			return nil
		}, slices.Concat([]any{" WHERE id IN ("}, list(some), []any{")"})...)
		if err != nil { // then all is read
			c.stale = true
			return scheduler.ErrChanged
		}
	}
	for _, id := range ids {
		c.scan.rereads(id)
		if r := c.row(id); r != nil && !there[id] {
			l.forget(r.name)
		}
	}
	spent, displaced := l.take(rows, nil, c.schedules)
	if spent || displaced { // then all is read, too
		c.stale = true
	}
	return scheduler.ErrChanged
}

// addPending notes the runs that are about to be sent, and forgets those that were. One that is there already is the same.
func (l *lease) addPending(ctx context.Context, tx *sql.Tx, marks []scheduler.Mark) error {
	var runs []scheduler.Run
	for _, m := range marks {
		runs = append(runs, m.Runs...)
	}
	for some := range slices.Chunk(slices.Concat(l.sent, runs), chunk) {
		if err := l.removePending(ctx, tx, some); err != nil {
			return err
		}
	}
	for some := range slices.Chunk(runs, chunk) {
		parts := []any{"INSERT INTO ", pendingTable, " (id, run) VALUES "}
		for i, r := range some {
			text, err := r.MarshalJSON()
			if err != nil {
				return err
			}
			if i > 0 {
				parts = append(parts, ", ")
			}
			parts = append(parts, "(", arg{r.ID}, ", ", arg{string(text)}, ")")
		}
		if _, err := l.dialect.exec(ctx, tx, parts...); err != nil {
			return err
		}
	}
	return nil
}

func (l *lease) removePending(ctx context.Context, r runner, runs []scheduler.Run) error {
	ids := make([]string, len(runs))
	for i, run := range runs {
		ids[i] = run.ID
	}
	_, err := l.dialect.exec(ctx, r, slices.Concat([]any{"DELETE FROM ", pendingTable, " WHERE id IN ("}, list(ids), []any{")"})...)
	return err
}

// soon is how long what is done with may wait for the next mark, whose transaction takes it along: each one costs the database a write
// to its disk.
const soon = 50 * time.Millisecond

// Done is [scheduler.Lease]'s. It needs no lease: what is sent is sent.
func (l *lease) Done(ctx context.Context, runs []scheduler.Run) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.read.table; t != nil && !l.released && len(l.sent)+len(runs) <= mostSent {
		if due, _ := t.Due(time.Now().Add(soon), 1); len(due) > 0 {
			l.sent = append(l.sent, runs...)
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return l.flush(ctx, runs)
}

// mostSent is how much may wait for a mark.
const mostSent = 1000

// flush removes what is done with from the table of pending runs.
func (l *lease) flush(ctx context.Context, runs []scheduler.Run) error {
	for some := range slices.Chunk(slices.Concat(l.sent, runs), chunk) {
		if err := l.inTurn(ctx, func() error { return l.removePending(ctx, l.db, some) }); err != nil {
			return err
		}
	}
	l.sent = nil
	return nil
}

// Rewind is [scheduler.Lease]'s.
func (l *lease) Rewind(ctx context.Context, now time.Time, skew time.Duration) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read.stale = true
	d := l.dialect
	latest := now.Add(skew)
	var n int64
	err := l.within(ctx, func(ctx context.Context, tx *sql.Tx) (err error) {
		n, err = d.exec(ctx, tx, "UPDATE ", taskTable, " SET last_run_at = ", d.time(now), ", date_changed = ", d.stamp(now),
			" WHERE enabled AND (last_run_at > ", d.time(latest), " OR last_run_at IS NULL AND date_changed > ", d.stamp(latest), ")")
		return err
	})
	if errors.Is(err, scheduler.ErrNotLeading) {
		return 0, err
	}
	return int(n), err
}
