package sql

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// statement joins the parts of one: names that are our own or quoted by the dialect, and placeholders. Values are never
// among them.
func statement(parts ...string) string { return strings.Join(parts, "") }

// takes tells whether the column takes the key. One it does not take is in no row, and some servers refuse to compare with it.
func (t *table) takes(column, key string) bool {
	return !t.limits[column].ASCII || strings.IndexFunc(key, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

// query reads columns of the rows with the keys, which are few enough for one statement.
func (b *Backend) query(ctx context.Context, t *table, key string, keys, columns []string, found func(key string, fields []field) error) error {
	keys = slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return !t.takes(key, k) })
	if len(keys) == 0 {
		return nil
	}
	args := make([]any, len(keys))
	marks := make([]string, len(keys))
	for i, k := range keys {
		args[i], marks[i] = k, b.dialect.Placeholder(i+1)
	}
	rows, err := b.db.QueryContext(ctx, statement("SELECT ", key, ", ", strings.Join(columns, ", "), " FROM ", t.quoted,
		" WHERE ", key, " IN (", strings.Join(marks, ", "), ")"), args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id field
		fields := make([]field, len(columns))
		into := []any{&id}
		for i := range fields {
			into = append(into, &fields[i])
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if err := found(id.String, fields); err != nil {
			return err
		}
	}
	return rows.Err()
}

// poll is a backends.Reader.
func (b *Backend) poll(ctx context.Context, ids []string, found func(id, text string)) error {
	keys := askable(ids)
	if len(keys) == 0 && !b.closed.Load() {
		return nil
	}
	return b.do(ctx, "read results", func(ctx context.Context, t *tables) error {
		names := t.task.names(b.layout.columns())
		return b.query(ctx, t.task, b.layout.key(), keys, names, func(id string, fields []field) error {
			found(id, pack(fields))
			return nil
		})
	})
}

// askable leaves out the ids that no row can have and that a database might not even be asked for.
func askable(ids []string) []string {
	keys := make([]string, 0, len(ids))
	for _, id := range ids {
		if _, err := identifier("the id", id); err == nil {
			keys = append(keys, id)
		}
	}
	return keys
}

// names are the columns as a query has them: NULL for those that the table lacks.
func (t *table) names(columns []column) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		if names[i] = c.name; c.optional && !t.columns[c.name] {
			names[i] = "NULL"
		}
	}
	return names
}

// Get is backends.Backend's.
func (b *Backend) Get(ctx context.Context, id string) (*protocol.ResultMeta, error) {
	metas, err := b.GetMany(ctx, id)
	if err != nil {
		return nil, err
	}
	return metas[0], nil
}

// GetMany is backends.Backend's.
func (b *Backend) GetMany(ctx context.Context, ids ...string) ([]*protocol.ResultMeta, error) {
	return backends.Reader(b.poll).GetMany(ctx, b.layout, ids...)
}

// Forget is backends.Backend's.
func (b *Backend) Forget(ctx context.Context, ids ...string) error {
	for ids = askable(ids); len(ids) > 0; {
		n := min(len(ids), batchKeys)
		err := b.do(ctx, "forget results", func(ctx context.Context, t *tables) error {
			return b.remove(ctx, t.task, b.layout.key(), ids[:n])
		})
		if err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// remove deletes the rows with the keys, and none whose key the database alone takes for the same.
func (b *Backend) remove(ctx context.Context, t *table, key string, keys []string) error {
	keys = slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return !t.takes(key, k) })
	if len(keys) == 0 {
		return nil
	}
	args := make([]any, len(keys))
	marks := make([]string, len(keys))
	for i, k := range keys {
		args[i], marks[i] = k, b.dialect.Placeholder(i+1)
	}
	list := " IN (" + strings.Join(marks, ", ") + ")"
	where := key + list
	if b.dialect.Binary != nil {
		where += " AND " + b.dialect.Binary(key) + list
		args = slices.Concat(args, args)
	}
	_, err := b.db.ExecContext(ctx, statement("DELETE FROM ", t.quoted, " WHERE ", where), args...)
	return err
}
