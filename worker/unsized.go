package worker

import (
	"context"
	"sync"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// maxUnsized bounds the chords that are watched at once because their size is not known.
const maxUnsized = 10_000

// unsized is the actor that watches chords whose parts come back and find no size. That is nothing unusual: Celery stores the
// size of a chord with its last part, and what ran before finds none. But one whose size is gone, or was never stored, because its sender
// has died or the backend was emptied, would wait for ever. So its first part is counted once more after
// [Config].ChordSizeTimeout: then it completes the chord if it can, or fails it if there is no size still.
type unsized struct {
	w *Worker

	mu     sync.Mutex
	parts  []unsizedPart // the oldest first
	groups map[string]bool
	came   chan struct{} // capacity 1: a part where there was none
}

type unsizedPart struct {
	chordPart
	outcome *outcome
	due     time.Time
}

func newUnsized(w *Worker) *unsized {
	return &unsized{w: w, groups: map[string]bool{}, came: make(chan struct{}, 1)}
}

// watch takes a part whose chord has no size. One that was handed out before may be of a chord that a Python worker has completed, which
// leaves nothing behind: nobody waits for it.
func (u *unsized) watch(o *outcome, p chordPart) {
	if o.delivery.Redelivered || p.body == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.groups[p.Group] || len(u.parts) >= maxUnsized {
		return
	}
	u.groups[p.Group] = true
	u.parts = append(u.parts, unsizedPart{p, o, time.Now().Add(u.w.config.ChordSizeTimeout)})
	select {
	case u.came <- struct{}{}:
	default:
	}
}

// run counts parts again as they come due, until ctx is done.
func (u *unsized) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		due, next := u.take(time.Now())
		for _, p := range due {
			u.w.window.take(1) // which settle frees
			u.w.report(&outcome{delivery: p.outcome.delivery, request: p.outcome.request, state: protocol.Ignored, settled: true, lastCall: true,
				continuation: continuation{parts: []chordPart{p.chordPart}}})
		}
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-u.came:
		case <-ctx.Done():
			return
		}
	}
}

// take takes out the parts that are due and tells how long the next one has.
func (u *unsized) take(now time.Time) (due []unsizedPart, next time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.parts) > 0 && !now.Before(u.parts[0].due) {
		due = append(due, u.parts[0])
		delete(u.groups, u.parts[0].Group)
		u.parts[0] = unsizedPart{}
		u.parts = u.parts[1:]
	}
	if len(u.parts) == 0 {
		u.parts = nil
		return due, time.Hour
	}
	return due, u.parts[0].due.Sub(now)
}

// countedUnsized ends a chord that has no size still, or watches it from now on. Of several workers one ends it.
func (w *Worker) countedUnsized(o *outcome, p chordPart) {
	if !o.lastCall {
		w.unsized.watch(o, p)
		return
	}
	if claimer, ok := w.backend.(backends.Claimer); ok {
		if first, err := claimer.Claim(w.applying, "unsized/"+p.Group, o.request.ID); err == nil && !first {
			return
		}
	}
	o.ended = append(o.ended, backends.ChordEnd{Group: p.Group, Failed: true})
	w.failChord(o, p.body, "Join error: how many parts the chord "+p.Group+" has is not known: its size was not stored, or is gone", nil)
}
