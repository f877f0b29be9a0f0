package django

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/gelery/gelery/scheduler"
)

const (
	// pollInterval is how often the marker is looked at that Django's signals set.
	pollInterval = time.Second
	// rereadInterval is after which time everything is read again, as Python does: some change tables without the signals.
	rereadInterval = 5 * time.Minute
)

// read is what the leader knows of the tables.
type read struct {
	stale     bool // what is known may be wrong
	polled    time.Time
	read      time.Time // when all was read
	marker    time.Time
	horizon   string // up to where the changes are known, where the database tells; see dialect
	table     *scheduler.Table
	rows      map[string]*taskRow // of all that are enabled, by name; none is changed, another takes its place
	names     map[int64]string    // of the same, by id
	wrong     map[string]bool     // those that cannot be used, and were reported
	schedules schedules
	ends      time.Time // not after the first of the ends of the entries; zero: none has one
	disabled  int       // how many rows are not enabled
	scan      *scan     // under way
}

// refresh reads the tables if they have changed, and disables what has had its end. What is changed by others while the beat leads is
// read beside it.
func (l *lease) refresh(ctx context.Context, now time.Time) error {
	c := &l.read
	switch {
	case c.stale:
		marker, err := l.marker(ctx, l.db, "")
		if err != nil {
			return err
		}
		if err := l.load(ctx); err != nil {
			return err
		}
		c.stale, c.marker, c.read, c.polled = false, marker, now, now
		if err := l.disableSpent(ctx, now); err != nil {
			return err
		}
	case c.scan != nil:
		if err := l.finish(ctx, now); err != nil {
			return err
		}
	case now.Sub(c.polled).Abs() >= pollInterval:
		marker, err := l.marker(ctx, l.db, "")
		if err != nil {
			return err
		}
		kind := scanNew
		if now.Sub(c.read).Abs() >= rereadInterval {
			kind = scanAll
		}
		if kind == scanAll || !marker.Equal(c.marker) {
			l.begin(kind, marker)
			if now.Sub(c.polled).Abs() >= 2*pollInterval { // nobody has looked for long: what is known is too old to go by
				err = l.await(ctx, now)
			}
		}
		if c.polled = now; err != nil {
			return err
		}
	}
	if !c.ends.IsZero() && !now.Before(c.ends) {
		return l.disableEnded(ctx, now)
	}
	return nil
}

// row is what is known of a row; nil: nothing.
func (c *read) row(id int64) *taskRow {
	if name, known := c.names[id]; known {
		return c.rows[name]
	}
	return nil
}

// marker is when the tables were changed last.
func (s *Store) marker(ctx context.Context, r runner, lock string) (time.Time, error) {
	var at column
	err := s.dialect.query(ctx, r, func(scan func(...any) error) error { return scan(&at) }, "SELECT last_update FROM ", markerTable, " WHERE ident = 1", lock)
	return s.dialect.readStamp(at), err
}

// load reads the enabled rows. An entry whose row says what it said is kept.
func (l *lease) load(ctx context.Context) error {
	c := &l.read
	if c.scan != nil { // what it finds is known then
		c.scan.cancel()
		c.scan = nil
	}
	horizon, err := l.horizonNow(ctx, l.db)
	if err != nil {
		return err
	}
	rows, names := make(map[string]*taskRow, len(c.rows)), make(map[int64]string, len(c.rows))
	err = l.readTasks(ctx, l.db, func(r *taskRow) error {
		rows[r.name], names[r.id] = r, r.name
		return nil
	}, " WHERE enabled")
	if err != nil {
		return err
	}
	all, err := l.readSchedules(ctx, l.db, c.schedules, "")
	if err != nil {
		return err
	}
	if _, c.disabled, err = l.countRows(ctx, l.db); err != nil {
		return err
	}
	if c.table == nil {
		c.table, c.wrong = scheduler.NewTable(), map[string]bool{}
	}
	for name := range c.rows {
		if rows[name] == nil {
			c.table.Remove(name)
			delete(c.wrong, name)
		}
	}
	for _, r := range rows {
		l.set(r, c.row(r.id), all)
	}
	c.ends = firstEnd(rows)
	c.rows, c.names, c.schedules, c.horizon = rows, names, all, horizon
	return nil
}

// set puts a row into the table, if it is another one than it was.
func (l *lease) set(r, before *taskRow, all schedules) {
	c := &l.read
	if before != nil {
		r.keep(before)
	}
	k := r.kind()
	same := before != nil && before.definition == r.definition && (k == noKind || sameSchedule(c.schedules[k], all[k], r.schedule[k].Int64))
	had, there := c.table.Get(r.name)
	if same && (there && before.state == r.state || c.wrong[r.name]) {
		return
	}
	record, err := l.record(r, all)
	if err != nil {
		l.log.Error("beat: an entry cannot be used; the others go on", "error", err)
		c.wrong[r.name] = true
		c.table.Remove(r.name)
		return
	}
	delete(c.wrong, r.name)
	if there && same {
		record.Entry = had.Entry
	}
	c.table.Set(record)
}

func sameSchedule(before, now map[int64]scheduleRow, id int64) bool {
	b, had := before[id]
	n, has := now[id]
	return had == has && b.key == n.key
}

// disableSpent disables what has run once and was to run no more. The run may have been Python's.
func (l *lease) disableSpent(ctx context.Context, now time.Time) error {
	return l.disable(ctx, now, func(r *taskRow) bool { return r.spent() }, ", total_run_count = 0", " AND one_off AND total_run_count > 0")
}

// disableEnded disables what has come to its end.
func (l *lease) disableEnded(ctx context.Context, now time.Time) error {
	ended := func(r *taskRow) bool { return !r.expires.IsZero() && !now.Before(r.expires) }
	if err := l.disable(ctx, now, ended, "", " AND expires <= ", l.dialect.time(now)); err != nil {
		return err
	}
	l.read.ends = firstEnd(l.read.rows)
	return nil
}

// firstEnd is the first of the ends of entries; zero: none has one.
func firstEnd(rows map[string]*taskRow) (first time.Time) {
	for _, r := range rows {
		if e := r.expires; !e.IsZero() && (first.IsZero() || e.Before(first)) {
			first = e
		}
	}
	return first
}

// disable disables rows as Python's beat does, which clears last_run_at.
func (l *lease) disable(ctx context.Context, now time.Time, which func(*taskRow) bool, set string, where ...any) error {
	c := &l.read
	var rows []*taskRow
	for _, r := range c.rows {
		if which(r) {
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	slices.SortFunc(rows, byID)
	var before, after time.Time
	err := l.within(ctx, func(ctx context.Context, tx *sql.Tx) (err error) {
		for some := range slices.Chunk(rows, chunk) {
			parts := slices.Concat([]any{"UPDATE ", taskTable, " SET enabled = ", arg{false}, ", last_run_at = NULL, date_changed = ", l.dialect.stamp(now), set,
				" WHERE enabled AND id IN ("}, list(idsOf(some)), []any{")"}, where)
			if _, err := l.dialect.exec(ctx, tx, parts...); err != nil {
				return err
			}
		}
		before, after, err = l.touch(ctx, tx, now)
		return err
	})
	if err != nil {
		c.stale = true
		return err
	}
	l.touched(before, after)
	for _, r := range rows {
		l.log.Info("beat: an entry has come to its end and is disabled", "entry", r.name)
		l.forget(r.name)
		c.disabled++
	}
	return nil
}

// forget takes out what is no longer enabled.
func (l *lease) forget(name string) {
	if r := l.read.rows[name]; r != nil {
		delete(l.read.names, r.id)
		l.read.scan.moves(r.id)
	}
	delete(l.read.rows, name)
	delete(l.read.wrong, name)
	l.read.table.Remove(name)
}

func byID(a, b *taskRow) int { return cmp.Compare(a.id, b.id) }

func idsOf(rows []*taskRow) []int64 {
	ids := make([]int64, len(rows))
	for i, r := range rows {
		ids[i] = r.id
	}
	return ids
}

// touch tells who else reads the tables that they were changed, as Django's signals do. It returns what it said before, and now:
// later than before, whatever the clocks say.
func (s *Store) touch(ctx context.Context, r runner, now time.Time) (before, after time.Time, err error) {
	if before, err = s.marker(ctx, r, s.dialect.lock); err != nil {
		return before, after, err
	}
	after = now.UTC().Truncate(time.Microsecond)
	if before.IsZero() {
		_, err = s.dialect.exec(ctx, r, "INSERT INTO ", markerTable, " (ident, last_update) VALUES (1, ", s.dialect.stamp(after), ")")
		return before, after, err
	}
	if !after.After(before) {
		after = before.Add(time.Microsecond)
	}
	_, err = s.dialect.exec(ctx, r, "UPDATE ", markerTable, " SET last_update = ", s.dialect.stamp(after), " WHERE ident = 1")
	return before, after, err
}

// touched notes a change of our own, which need not be read again, unless there was one of others before it.
func (l *lease) touched(before, after time.Time) {
	if before.Equal(l.read.marker) {
		l.read.marker = after
	}
	if s := l.read.scan; s != nil && before.Equal(s.marker) { // it has begun after that of others
		s.marker = after
	}
}
