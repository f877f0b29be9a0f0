package transport

import (
	"context"
	"time"
)

// Keeper is a Transport whose broker can keep in mind what all workers must know, those included that sleep or begin later:
// on Redis. Celery has nothing like it, its revocations live in the memory of the workers that hear them.
type Keeper interface {
	// Remember puts members into a named set, as of now by the broker's clock. What is in it longer than the bound, and
	// the oldest of too many, is forgotten.
	Remember(ctx context.Context, set string, members []string, b KeeperBounds) error
	// Recall tells the members that were put into the set within the time before now, or again within it, in no order.
	Recall(ctx context.Context, set string, within time.Duration) ([]Remembered, error)
}

// KeeperBounds bound a Keeper's set.
type KeeperBounds struct {
	Members int
	Age     time.Duration
}

// Remembered is a member of a Keeper's set, and how long ago it was put there.
type Remembered struct {
	Member string
	Age    time.Duration
}

// The sets of what was revoked. Members of the first are task ids, those of the second stamps as "header=value" with the
// value as JSON.
const (
	RevokedSet       = "revoked"
	RevokedStampsSet = "revoked_stamps"
)

// DefaultRevokedBounds are 50,000 ids, as in Celery, and a week: worker_revokes_max, worker_revoke_expires. Celery's three hours
// count only when it has too many. Here a task that is not due rests in the broker, and nobody would remember it when it is.
var DefaultRevokedBounds = KeeperBounds{Members: 50_000, Age: 7 * 24 * time.Hour}
