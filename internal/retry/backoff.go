package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff waits between tries: 50 ms at first, twice as long each time up to 2 s, each shortened by chance by up to a
// half so that a fleet does not come back in step. The zero value is ready.
type Backoff struct {
	Min, Max time.Duration // 0: 50 ms and 2 s
	next     time.Duration
}

// Wait waits for the next interval or until ctx is done, whose cause it then returns.
func (b *Backoff) Wait(ctx context.Context) error {
	timer := time.NewTimer(b.interval())
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// Reset starts over with the shortest interval.
func (b *Backoff) Reset() { b.next = 0 }

func (b *Backoff) interval() time.Duration {
	lo, hi := b.Min, b.Max
	if lo <= 0 {
		lo = 50 * time.Millisecond
	}
	if hi <= 0 {
		hi = 2 * time.Second
	}
	if b.next == 0 {
		b.next = lo
	}
	d := b.next
	b.next = min(2*b.next, max(lo, hi))
	return d - rand.N(d/2+1)
}
