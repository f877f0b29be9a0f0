package scheduler

import (
	"context"
	"errors"
	"iter"
	"time"
)

// Store keeps entries and what became of them. Its methods may be called concurrently. A beat leads with it; what else wants to
// see and change a schedule uses the same methods, also while a beat of another process leads.
type Store interface {
	// Lead waits until this store's beat is the one that sends, and returns its lease. A store that knows no others leads at
	// once.
	Lead(ctx context.Context) (Lease, error)

	// Entries are all entries with their states, in no order. What cannot be read of one is an *EntryError in its place, and
	// the others follow.
	Entries(ctx context.Context) iter.Seq2[Record, error]
	// Entry is one of them; ErrNoEntry if there is none.
	Entry(ctx context.Context, name string) (Record, error)
	// Put adds entries or changes those of their names, which keep their states: all of them or none. (The local store changes one
	// file after the other, if they are in several.) A new one is first sent at its schedule's next moment. An entry that the store
	// cannot keep is an *EntryError.
	Put(ctx context.Context, entries ...*Entry) error
	// Pause keeps an entry from being sent, or lets it be sent again: from its next moment on, without what it missed.
	Pause(ctx context.Context, name string, paused bool) error
	Remove(ctx context.Context, name string) error

	Close() error
}

// Lease is the right to send. All its methods may fail with ErrNotLeading: then another beat may lead, and nothing may be sent
// any more. A lease is renewed by itself.
type Lease interface {
	// Lost is closed when the lease is lost.
	Lost() <-chan struct{}
	// Changed tells that the entries were changed: Due may answer otherwise than it said. nil: the store does not tell.
	Changed() <-chan struct{}

	// Pending are the runs that were marked and not reported as done, by this beat or the one before.
	Pending(ctx context.Context) ([]Run, error)
	// Due are entries that are due at now, the earliest first, at most limit; and when the next one is due after them, the
	// zero time if none is. One that cannot be read is logged and left out. ErrChanged: Pending may say more than it did.
	Due(ctx context.Context, now time.Time, limit int) (due []Record, next time.Time, err error)
	// Mark notes what is about to be sent, and that it is dealt with: all or nothing. ErrChanged: an entry is no longer as Due
	// said, and nothing is noted. Then the next Due tells all entries that were refused as they are now, without a Pending before it;
	// that is called after each second refusal in a row. After any other error it may be noted or not; Pending and Due tell.
	Mark(ctx context.Context, marks []Mark) error
	// Done notes that runs are with the broker, or will never be.
	Done(ctx context.Context, runs []Run) error
	// Rewind is called when the clock may have been set back: what was last run later than now, by more than
	// skew, counts as run now. It returns how many entries that were.
	Rewind(ctx context.Context, now time.Time, skew time.Duration) (int, error)
	// Release gives the lease back.
	Release(ctx context.Context) error
}

// Skew is how far in the future the last moment of an entry may be when a beat begins to lead: clocks of two machines differ. While it
// leads, the clock is its own, and [Lease.Rewind] is called with no skew when it was set back.
const Skew = time.Minute

// Record is an entry as a store has it.
type Record struct {
	Entry *Entry
	State State
	// Source is where it is defined, for messages: "beat_schedule", the name of a file, "redbeat".
	Source string
	// Fixed: it is defined elsewhere, and the store cannot change or remove it.
	Fixed bool
}

// Mark is what becomes of an entry that was due.
type Mark struct {
	Entry *Entry
	State State     // after it
	Next  time.Time // when it is due next; zero: never
	Pause bool      // it has done what it was for
	Runs  []Run

	leftOut []time.Time // moments that were missed and are not made up for: the latest of them
}

// Errors of stores.
var (
	ErrNotLeading = errors.New("another beat leads")
	ErrChanged    = errors.New("an entry was changed meanwhile")
	ErrNoEntry    = errors.New("there is no entry of this name")
	ErrFixed      = errors.New("the entry is defined elsewhere and cannot be changed here")
)
