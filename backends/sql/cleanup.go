package sql

import (
	"context"
	"strconv"
	"time"
)

const cleanupRows = 1000 // in one statement, which must not hold up those who store

// Cleanup removes the results and groups that were stored longer ago than Options.Expires, those of Python among them.
// celery.backend_cleanup.
func (b *Backend) Cleanup(ctx context.Context) error {
	if b.expires < 0 {
		return nil
	}
	before := b.dialect.Time(time.Now().Add(-b.expires).UTC())
	for _, choose := range []func(*tables) *table{func(t *tables) *table { return t.task }, func(t *tables) *table { return t.group }} {
		for more := true; more; {
			err := b.do(ctx, "remove expired results", func(ctx context.Context, t *tables) (err error) {
				more, err = b.removeOld(ctx, choose(t), before)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// removeOld removes some rows, and tells whether there may be more.
func (b *Backend) removeOld(ctx context.Context, t *table, before any) (bool, error) {
	const old = " WHERE date_done < "
	rows, err := b.db.QueryContext(ctx, statement("SELECT id FROM ", t.quoted, old, b.dialect.Placeholder(1), " LIMIT ", strconv.Itoa(cleanupRows)), before)
	if err != nil {
		return false, err
	}
	defer func() { _ = rows.Close() }()
	args, marks := []any{before}, ""
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return false, err
		}
		args = append(args, id)
		marks += ", " + b.dialect.Placeholder(len(args))
	}
	if err := rows.Err(); err != nil || marks == "" {
		return false, err
	}
	// What was stored anew meanwhile is not old.
	_, err = b.db.ExecContext(ctx, statement("DELETE FROM ", t.quoted, old, b.dialect.Placeholder(1), " AND id IN (", marks[2:], ")"), args...)
	return len(args) > cleanupRows, err
}
