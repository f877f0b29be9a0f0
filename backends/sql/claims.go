package sql

import (
	"context"
	"errors"
	"time"

	"github.com/gelery/gelery/backends"
)

var _ backends.Claimer = (*Backend)(nil)

// Claim is backends.Claimer's: a row in the table of groups, so that no table is needed that Celery does not have, and a cleanup
// removes it, Celery's as well.
func (b *Backend) Claim(ctx context.Context, name, holder string) (bool, error) {
	key, holder := backends.ClaimKey(name), backends.ClaimHolder(holder)
	values, err := b.layout.claimValues(holder, time.Now())
	if err != nil {
		return false, err
	}
	var stored []field
	err = b.do(ctx, "claim", func(ctx context.Context, t *tables) error {
		w := writer{b: b, table: t.group, key: b.layout.groupKey(), columns: b.layout.groupColumns(), keepAll: true}
		if err := w.write(ctx, []row{newRow(key, false, values)}); err != nil {
			return err
		}
		if stored, err = b.groupFields(ctx, t, key); err == nil && stored == nil {
			err = errors.New("a claim was removed as it was made")
		}
		return err
	})
	if err != nil {
		return false, err
	}
	has, err := b.layout.claimHolder(stored)
	return has == holder, err
}
