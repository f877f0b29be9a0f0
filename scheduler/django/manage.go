package django

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/gelery/gelery/internal/database"
	"github.com/gelery/gelery/scheduler"
)

// Entries is [scheduler.Store]'s: all rows, also the disabled ones.
func (s *Store) Entries(ctx context.Context) iter.Seq2[scheduler.Record, error] {
	return func(yield func(scheduler.Record, error) bool) {
		var rows []*taskRow
		var all schedules
		err := s.policy.Do(ctx, s.log, "read the schedule", func(ctx context.Context) (err error) {
			rows = nil
			err = s.readTasks(ctx, s.db, func(r *taskRow) error {
				rows = append(rows, r)
				return nil
			}, " ORDER BY id")
			if err == nil {
				all, err = s.readSchedules(ctx, s.db, schedules{}, "")
			}
			return err
		})
		if err != nil {
			yield(scheduler.Record{}, err)
			return
		}
		for _, r := range rows {
			if !yield(s.record(r, all)) {
				return
			}
		}
	}
}

// Entry is [scheduler.Store]'s.
func (s *Store) Entry(ctx context.Context, name string) (record scheduler.Record, err error) {
	err = s.policy.Do(ctx, s.log, "read an entry", func(ctx context.Context) error {
		row, err := s.find(ctx, s.db, name, "")
		if err != nil {
			return err
		}
		if row == nil {
			return scheduler.ErrNoEntry
		}
		all, err := s.readOwn(ctx, s.db, row)
		if err == nil {
			record, err = s.record(row, all)
		}
		return err
	})
	return record, err
}

// find reads the row of a name; nil if there is none. Some databases take another one for the same, which it is not.
func (s *Store) find(ctx context.Context, r runner, name, lock string) (row *taskRow, err error) {
	err = s.readTasks(ctx, r, func(found *taskRow) error {
		if found.name == name {
			row = found
		}
		return nil
	}, " WHERE name = ", arg{name}, lock)
	return row, err
}

// Put is [scheduler.Store]'s. It writes what a person would in Django's admin pages, and uses the rows of schedules that are there.
func (s *Store) Put(ctx context.Context, entries ...*scheduler.Entry) error {
	rows := make([]*writtenRow, len(entries))
	for i, e := range entries {
		var err error
		if rows[i], err = s.write(e); err != nil {
			return err
		}
	}
	return s.edit(ctx, "store entries", func(ctx context.Context, tx *sql.Tx, now time.Time) error {
		for i, e := range entries {
			if err := s.put(ctx, tx, e, rows[i], now, false); err != nil {
				return err
			}
		}
		return nil
	})
}

// Pause is [scheduler.Store]'s: as in Django it clears last_run_at, so that an entry goes on from the time when it was enabled.
func (s *Store) Pause(ctx context.Context, name string, paused bool) error {
	return s.edit(ctx, "change an entry", func(ctx context.Context, tx *sql.Tx, now time.Time) error {
		row, err := s.find(ctx, tx, name, s.dialect.lock)
		switch {
		case err != nil:
			return err
		case row == nil:
			return scheduler.ErrNoEntry
		case row.enabled == !paused:
			return nil
		}
		_, err = s.dialect.exec(ctx, tx, "UPDATE ", taskTable, " SET enabled = ", arg{!paused}, ", last_run_at = NULL, date_changed = ", s.dialect.stamp(now),
			" WHERE id = ", arg{row.id})
		return err
	})
}

// Remove is [scheduler.Store]'s. The row of its schedule stays, as in Django.
func (s *Store) Remove(ctx context.Context, name string) error {
	return s.edit(ctx, "remove an entry", func(ctx context.Context, tx *sql.Tx, _ time.Time) error {
		row, err := s.find(ctx, tx, name, s.dialect.lock)
		switch {
		case err != nil:
			return err
		case row == nil:
			return scheduler.ErrNoEntry
		}
		_, err = s.dialect.exec(ctx, tx, "DELETE FROM ", taskTable, " WHERE id = ", arg{row.id})
		return err
	})
}

// edit changes rows and tells every beat so.
func (s *Store) edit(ctx context.Context, what string, change func(ctx context.Context, tx *sql.Tx, now time.Time) error) error {
	err := s.policy.Do(ctx, s.log, what, func(ctx context.Context) error {
		return s.transaction(ctx, func(tx *sql.Tx) error {
			now := time.Now()
			// First the marker: it is changed by everybody, so that two who edit come one after the other.
			if _, _, err := s.touch(ctx, tx, now); err != nil {
				return err
			}
			return change(ctx, tx, now)
		})
	})
	if err == nil {
		s.wake()
	}
	return err
}

// wake tells the beat of this store that there is something new.
func (s *Store) wake() {
	select {
	case s.change <- struct{}{}:
	default:
	}
}

// putStatic stores the entries of the configuration as Python's beat does when it starts: an entry that is there stays enabled or
// disabled as it is.
func (s *Store) putStatic(ctx context.Context) {
	for _, e := range s.config.Static {
		row, err := s.write(e)
		if err == nil {
			err = s.staticChanged(ctx, e, row)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("beat: an entry of the configuration cannot be stored; the others go on", "error", err)
		}
	}
}

// errSame ends an edit that would change nothing.
var errSame = finalError{errors.New("nothing is to be changed")}

func (s *Store) staticChanged(ctx context.Context, e *scheduler.Entry, row *writtenRow) error {
	err := s.edit(ctx, "store an entry", func(ctx context.Context, tx *sql.Tx, now time.Time) error { return s.put(ctx, tx, e, row, now, true) })
	if errors.Is(err, errSame) {
		return nil
	}
	return err
}

// put writes an entry. A static one is left alone where the row says the same.
func (s *Store) put(ctx context.Context, tx *sql.Tx, e *scheduler.Entry, w *writtenRow, now time.Time, static bool) error {
	d := s.dialect
	before, err := s.find(ctx, tx, e.Name, d.lock)
	if err != nil {
		return err
	}
	id, err := s.scheduleID(ctx, tx, w)
	if err != nil {
		return err
	}
	row := w.definition
	row.schedule[w.kind] = sql.NullInt64{Int64: id, Valid: true}
	if static && before != nil {
		row.enabled = before.enabled
		if row == before.definition {
			return errSame
		}
	}
	columns := []struct {
		name string
		v    any
	}{
		{"name", arg{row.name}}, {"task", arg{row.task}}, {"args", arg{row.args}}, {"kwargs", arg{row.kwargs}}, {"headers", arg{row.headers}},
		{"queue", arg{row.queue}}, {"exchange", arg{row.exchange}}, {"routing_key", arg{row.routingKey}},
		{"priority", arg{row.priority}}, {"expire_seconds", arg{row.expireSeconds}}, {"one_off", arg{row.oneOff}}, {"enabled", arg{row.enabled}},
		{"interval_id", arg{row.schedule[interval]}}, {"crontab_id", arg{row.schedule[crontab]}}, {"solar_id", arg{row.schedule[solar]}},
		{"clocked_id", arg{row.schedule[clocked]}}, {"expires", d.time(row.expires)}, {"start_time", d.time(row.start)}, {"date_changed", d.stamp(now)},
	}
	var parts []any
	if before != nil {
		parts = []any{"UPDATE ", taskTable, " SET "}
		for i, c := range columns {
			if i > 0 {
				parts = append(parts, ", ")
			}
			parts = append(parts, c.name, " = ", c.v)
		}
		if !row.enabled {
			parts = append(parts, ", last_run_at = NULL")
		}
		parts = append(parts, " WHERE id = ", arg{before.id})
	} else {
		names, values := []any{"INSERT INTO ", taskTable, " (total_run_count, description"}, []any{") VALUES (0, ''"}
		for _, c := range columns {
			names = append(names, ", ", c.name)
			values = append(values, ", ", c.v)
		}
		parts = append(append(names, values...), ")")
	}
	_, err = d.exec(ctx, tx, parts...)
	if d.Kind(err) == database.Unfit {
		return &scheduler.EntryError{Entry: e.Name, Err: fmt.Errorf("the database does not take it: %w", err)}
	}
	return err
}

// scheduleID finds the row of a schedule, or makes it.
func (s *Store) scheduleID(ctx context.Context, tx *sql.Tx, w *writtenRow) (id int64, err error) {
	where, names, values := []any{" WHERE "}, []any{" ("}, []any{") VALUES ("}
	for i, c := range w.columns {
		if i > 0 {
			where, names, values = append(where, " AND "), append(names, ", "), append(values, ", ")
		}
		where, names, values = append(where, c.name, " = ", c.value), append(names, c.name), append(values, c.value)
	}
	table := scheduleTables[w.kind]
	find := func() (there bool, err error) {
		parts := append(append([]any{"SELECT id FROM ", table}, where...), " ORDER BY id LIMIT 1")
		err = s.dialect.query(ctx, tx, func(scan func(...any) error) error {
			there = true
			return scan(&id)
		}, parts...)
		return there, err
	}
	if there, err := find(); there || err != nil {
		return id, err
	}
	parts := append(append([]any{"INSERT INTO ", table}, names...), values...)
	if _, err := s.dialect.exec(ctx, tx, append(parts, ")")...); err != nil {
		return 0, err
	}
	there, err := find()
	if err == nil && !there {
		err = finalError{fmt.Errorf("table %s: a row is not as it was written", table)}
	}
	return id, err
}
