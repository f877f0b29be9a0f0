package sql

import (
	"context"
	"errors"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// SaveGroup is backends.GroupKeeper's. What is stored in Celery's table is a pickle of Celery's own GroupResult, which Python
// restores as one of the application that reads it.
func (b *Backend) SaveGroup(ctx context.Context, group *protocol.ResultTuple) error {
	id, err := identifier("the id", group.ID)
	if err == nil && id == "" {
		err = errors.New("a group without an id")
	}
	var values []any
	if err == nil {
		values, err = b.layout.groupValues(group, time.Now())
	}
	if err != nil {
		return &backends.EncodeError{TaskID: group.ID, Err: err}
	}
	return b.do(ctx, "save group", func(ctx context.Context, t *tables) error {
		w := writer{b: b, table: t.group, key: b.layout.groupKey(), columns: b.layout.groupColumns()}
		return w.write(ctx, []row{newRow(id, false, values)})
	})
}

// LoadGroup is backends.GroupKeeper's.
func (b *Backend) LoadGroup(ctx context.Context, id string) (*protocol.ResultTuple, error) {
	if len(askable([]string{id})) == 0 {
		return nil, nil
	}
	var stored []field
	err := b.do(ctx, "load group", func(ctx context.Context, t *tables) (err error) {
		stored, err = b.groupFields(ctx, t, id)
		return err
	})
	if err != nil || stored == nil {
		return nil, err
	}
	return b.layout.decodeGroup(id, stored)
}

// groupFields reads a row of the groups' table, nil if there is none.
func (b *Backend) groupFields(ctx context.Context, t *tables, key string) (stored []field, err error) {
	names := t.group.names(b.layout.groupColumns())
	err = b.query(ctx, t.group, b.layout.groupKey(), []string{key}, names, func(found string, fields []field) error {
		if found == key {
			stored = fields
		}
		return nil
	})
	return stored, err
}

// ForgetGroup is backends.GroupKeeper's.
func (b *Backend) ForgetGroup(ctx context.Context, id string) error {
	keys := askable([]string{id})
	if len(keys) == 0 {
		return nil
	}
	return b.do(ctx, "forget group", func(ctx context.Context, t *tables) error {
		return b.remove(ctx, t.group, b.layout.groupKey(), keys)
	})
}
