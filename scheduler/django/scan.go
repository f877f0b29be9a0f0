package django

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"strconv"
	"time"
)

// scan looks for what others have changed, beside the loop, which goes on with what it knows. Django's marker tells that there was a
// change, and not which: date_changed does not move with every change (queryset.update leaves it), and goes by the clocks of many machines.
// So all rows are compared, some at a time, unless the database itself tells which rows are new.
type scan struct {
	kind   scanKind
	marker time.Time      // before it began
	since  string         // of scanNew
	moved  map[int64]bool // by id: what this beat has marked, or taken out, since
	reread map[int64]bool // what it has read since
	found  found
	ended  chan struct{} // closed when found is set
	cancel context.CancelFunc
}

// scanKind is what a scan reads.
type scanKind int

const (
	scanNew scanKind = iota // the rows that were written since some time
	scanAll                 // all rows
	scanIDs                 // which rows there are
)

// found is what a scan tells.
type found struct {
	err       error
	rows      []*taskRow     // new or otherwise than they were; disabled ones too
	gone      []int64        // rows that are not there any more, or disabled
	ids       map[int64]bool // of scanIDs
	enabled   int            // of scanNew: how many rows are enabled
	disabled  int            // how many are not
	horizon   string
	schedules schedules
	changed   [noKind]map[int64]bool // schedules that say something else
}

// moves notes that this beat itself has changed a row: what the scan finds of it is older.
func (s *scan) moves(id int64) {
	if s != nil {
		s.moved[id] = true
	}
}

// rereads notes that this beat has read a row.
func (s *scan) rereads(id int64) {
	if s != nil {
		s.reread[id] = true
	}
}

// begin begins a scan. It ends by itself, or with the lease.
func (l *lease) begin(kind scanKind, marker time.Time) {
	c := &l.read
	ctx, cancel := context.WithTimeout(l.running, readTimeout)
	s := &scan{kind: kind, marker: marker, since: c.horizon, moved: map[int64]bool{}, reread: map[int64]bool{}, ended: make(chan struct{}), cancel: cancel}
	if kind == scanNew && s.since == "" {
		s.kind = scanAll
	}
	known, schedules := maps.Clone(c.rows), c.schedules
	c.scan = s
	l.scans.Go(func() {
		defer cancel()
		switch s.kind {
		case scanNew:
			s.found = l.readNew(ctx, s.since, known, schedules)
		case scanAll:
			s.found = l.compare(ctx, known, schedules)
		case scanIDs:
			s.found = l.readIDs(ctx)
		}
		close(s.ended)
		l.wake()
	})
}

// finish takes over what a scan has found, if it has ended.
func (l *lease) finish(ctx context.Context, now time.Time) error {
	c := &l.read
	s := c.scan
	select {
	case <-s.ended:
	default:
		return nil
	}
	c.scan = nil
	f := s.found
	if f.err != nil {
		c.stale = true
		return f.err
	}
	if s.kind == scanIDs {
		for name, r := range c.rows {
			if !f.ids[r.id] && !s.reread[r.id] {
				l.forget(name)
			}
		}
		return nil
	}
	for _, id := range f.gone {
		if r := c.row(id); r != nil && !s.moved[id] && !s.reread[id] {
			l.forget(r.name)
		}
	}
	found := len(f.rows)
	f.rows = slices.DeleteFunc(f.rows, func(r *taskRow) bool { // what is known is newer, or it is changed again
		return s.reread[r.id] || s.moved[r.id] && c.row(r.id) == nil
	})
	skipped := len(f.rows) < found
	spent, displaced := l.take(f.rows, s.moved, f.schedules)
	l.reschedule(f)
	c.schedules, c.marker, c.disabled = f.schedules, s.marker, f.disabled
	switch {
	case displaced: // by what was read at another time than the row that had the name: all is read once more
		c.read = time.Time{}
	case s.kind == scanAll:
		c.read = now
	}
	if !skipped {
		c.horizon = f.horizon
	}
	if s.kind == scanNew && f.enabled != len(c.rows) { // some were deleted, which leaves no trace
		l.begin(scanIDs, s.marker)
	}
	if spent {
		return l.disableSpent(ctx, now)
	}
	return nil
}

// await waits for what is read, and takes it over.
func (l *lease) await(ctx context.Context, now time.Time) error {
	for s := l.read.scan; s != nil; s = l.read.scan {
		select {
		case <-s.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := l.finish(ctx, now); err != nil {
			return err
		}
	}
	return nil
}

// take takes over rows as they were found, and tells whether one has run for the last time, and whether one has the name of another
// row that was not found otherwise. What this beat has marked since, it knows better. Names may have changed hands: no row gets its name
// before all have lost theirs.
func (l *lease) take(rows []*taskRow, moved map[int64]bool, all schedules) (spent, displaced bool) {
	c := &l.read
	before := make([]*taskRow, len(rows))
	for i, r := range rows {
		b := c.row(r.id)
		if before[i] = b; b == nil {
			continue
		}
		if moved[r.id] {
			r.state, r.ran = b.state, b.ran
		}
		if b.name != r.name || !r.enabled {
			l.forget(b.name)
		}
	}
	for i, r := range rows {
		if !r.enabled {
			continue
		}
		if other := c.rows[r.name]; other != nil && other.id != r.id {
			displaced = true
			l.forget(r.name)
		}
		l.set(r, before[i], all)
		c.rows[r.name], c.names[r.id] = r, r.name
		if e := r.expires; !e.IsZero() && (c.ends.IsZero() || e.Before(c.ends)) {
			c.ends = e
		}
		spent = spent || r.spent()
	}
	return spent, displaced
}

// reschedule moves the entries whose schedules say something else.
func (l *lease) reschedule(f found) {
	if !slices.ContainsFunc(f.changed[:], func(ids map[int64]bool) bool { return len(ids) > 0 }) {
		return
	}
	for _, r := range l.read.rows {
		if k := r.kind(); k != noKind && f.changed[k][r.schedule[k].Int64] {
			l.set(r, r, f.schedules)
		}
	}
}

// readIDs reads which rows there are.
func (l *lease) readIDs(ctx context.Context) found {
	f := found{ids: map[int64]bool{}}
	f.err = l.dialect.query(ctx, l.db, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		f.ids[id] = true
		return err
	}, "SELECT id FROM ", taskTable, " WHERE enabled")
	return f
}

// readNew reads the rows that were written since some time, as one state of the database.
func (l *lease) readNew(ctx context.Context, since string, rows map[string]*taskRow, known schedules) (f found) {
	tx, err := l.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return found{err: err}
	}
	defer func() { _ = tx.Rollback() }() // it has changed nothing
	if f.horizon, f.err = l.horizonNow(ctx, tx); f.err != nil {
		return f
	}
	where := " WHERE " + l.dialect.since(since)
	f.err = l.readTasks(ctx, tx, func(r *taskRow) error {
		if !r.same(rows[r.name]) { // most are those that this beat has marked
			f.rows = append(f.rows, r)
		}
		return nil
	}, where)
	if f.err == nil {
		f.enabled, f.disabled, f.err = l.countRows(ctx, tx)
	}
	if f.err == nil {
		f.schedules, f.err = l.readSchedules(ctx, tx, known, where)
		f.note(known)
	}
	for k, rows := range known {
		if len(f.schedules[k]) == 0 {
			f.schedules[k] = rows
			continue
		}
		merged := maps.Clone(rows)
		maps.Copy(merged, f.schedules[k])
		f.schedules[k] = merged
	}
	return f
}

// note finds which of the schedules say something else than they did.
func (f *found) note(known schedules) {
	for k, rows := range f.schedules {
		f.changed[k] = map[int64]bool{}
		for id, row := range rows {
			if before, ok := known[k][id]; !ok || before.key != row.key {
				f.changed[k][id] = true
			}
		}
	}
}

// same tells whether a row says what it said before.
func (r *taskRow) same(before *taskRow) bool {
	return before != nil && before.id == r.id && before.definition == r.definition && before.state == r.state
}

// page is how many rows a scan reads at once: SQLite lets nobody write meanwhile.
const page = 250

// compare reads all rows, and tells which are not as they are known.
func (l *lease) compare(ctx context.Context, known map[string]*taskRow, before schedules) (f found) {
	if f.horizon, f.err = l.horizonNow(ctx, l.db); f.err != nil {
		return f
	}
	seen := make(map[int64]bool, len(known))
	var after []any
	for n, last := page, int64(0); n == page; after = []any{" AND id > ", arg{last}} {
		n = 0
		f.err = l.inTurn(ctx, func() error {
			return l.readTasks(ctx, l.db, func(r *taskRow) error {
				n, last = n+1, r.id
				seen[r.id] = true
				if !r.same(known[r.name]) {
					f.rows = append(f.rows, r)
				}
				return nil
			}, slices.Concat([]any{" WHERE enabled"}, after, []any{" ORDER BY id LIMIT ", strconv.Itoa(page)})...)
		})
		if f.err != nil {
			return f
		}
	}
	if _, f.disabled, f.err = l.countRows(ctx, l.db); f.err != nil {
		return f
	}
	for _, r := range known {
		if !seen[r.id] {
			f.gone = append(f.gone, r.id)
		}
	}
	if f.schedules, f.err = l.readSchedules(ctx, l.db, before, ""); f.err == nil {
		f.note(before)
	}
	return f
}

// countRows counts the rows of PeriodicTask.
func (s *Store) countRows(ctx context.Context, r runner) (enabled, disabled int, err error) {
	err = s.dialect.query(ctx, r, func(scan func(...any) error) error { return scan(&enabled, &disabled) },
		"SELECT COUNT(CASE WHEN enabled THEN 1 END), COUNT(CASE WHEN NOT enabled THEN 1 END) FROM ", taskTable)
	return enabled, disabled, err
}

// horizonNow is up to where all changes are seen now; "" where the database does not tell.
func (s *Store) horizonNow(ctx context.Context, r runner) (horizon string, err error) {
	if s.dialect.horizon == "" {
		return "", nil
	}
	err = s.dialect.query(ctx, r, func(scan func(...any) error) error { return scan(&horizon) }, "SELECT ", s.dialect.horizon)
	return horizon, err
}
