package scheduler

import (
	"context"
	"time"

	"github.com/gelery/gelery/internal/exposition"
)

// Counts are how many entries a store has.
type Counts struct {
	Store   string // its name as a beat_scheduler: "local", "redbeat", "django"
	Enabled int    // with Mixed: all of them
	Paused  int
	Mixed   bool // the store does not know which of them are paused
}

// Counter is a [Lease] that knows how many entries there are, without reading them.
type Counter interface {
	Counts(ctx context.Context) (Counts, error)
}

// countInterval is how often a beat that leads asks for the counts.
const countInterval = 10 * time.Second

// count asks a lease for its counts. An error is that of a figure, and stops nothing.
func (b *Beat) count(ctx context.Context, lease Lease, now time.Time) {
	counter, ok := lease.(Counter)
	if !ok || now.Sub(b.stats.counted).Abs() < countInterval {
		return
	}
	b.stats.counted = now
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if c, err := counter.Counts(ctx); err == nil {
		b.stats.counts.Store(&c)
	}
}

// uncount forgets the counts of a store of which others may have changed the entries since.
func (b *Beat) uncount() {
	b.stats.counted = time.Time{}
	b.stats.counts.Store(nil)
}

// write writes the metric.
func (c *Counts) write(t *exposition.Text) {
	t.Family("gelery_beat_entries", "gauge", "Entries of the store, told by the beat that leads; enabled is not there where the store does not know it.")
	store := exposition.Label{Name: "store", Value: c.Store}
	if c.Mixed {
		t.Sample(float64(c.Enabled), store)
		return
	}
	t.Sample(float64(c.Enabled), store, exposition.Label{Name: "enabled", Value: "true"})
	t.Sample(float64(c.Paused), store, exposition.Label{Name: "enabled", Value: "false"})
}
