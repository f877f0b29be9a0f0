package worker

import (
	"hash/maphash"
	"math/rand/v2"
	"time"
)

// maxBookings bounds how many of the jobs that it has sent away a room recognizes when they come back.
const maxBookings = 1 << 16

// overdue is how long after its time a job is no longer expected: another worker got it.
const overdue = time.Minute

// bookings are the times at which a room has promised to run what it sent away, one behind the other. What comes back is
// recognized by its id, so that it is not sent behind those which came after it.
type bookings struct {
	last   time.Time // the latest time promised
	seed   maphash.Seed
	known  map[uint64]struct{}
	queued []booking // the same, by time
}

type booking struct {
	id uint64
	at time.Time
}

// book promises a job the next time that is free, not before at and apart by each from the one before. What would be
// later than latest is promised nothing; it comes back some time before.
func (b *bookings) book(id string, at time.Time, each time.Duration, now, latest time.Time) time.Time {
	if next := b.last.Add(each); next.After(at) {
		at = next
	}
	if at.After(latest) {
		return latest.Add(-rand.N(latest.Sub(now)/2 + 1))
	}
	b.last = at
	b.forget(now)
	if len(b.queued) < maxBookings {
		if b.known == nil {
			b.known, b.seed = map[uint64]struct{}{}, maphash.MakeSeed()
		}
		h := maphash.String(b.seed, id)
		b.known[h] = struct{}{}
		b.queued = append(b.queued, booking{h, at})
	}
	return at
}

// kept tells whether a job was sent away before; it is expected no more then.
func (b *bookings) kept(id string) bool {
	if len(b.known) == 0 {
		return false
	}
	h := maphash.String(b.seed, id)
	_, ok := b.known[h]
	delete(b.known, h)
	return ok
}

// forget lets go of what is long overdue.
func (b *bookings) forget(now time.Time) {
	for len(b.queued) > 0 && now.Sub(b.queued[0].at) > overdue {
		delete(b.known, b.queued[0].id)
		b.queued = b.queued[1:]
	}
}
