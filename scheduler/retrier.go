package scheduler

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// retrier sends again what the broker did not take, beside the loop: a queue that is full, or a backend that a chord needs and that
// is away, holds up nothing but what is for it. An entry whose runs wait here keeps no more of them than it makes up for when
// they are missed; what is past its deadline is left out.
type retrier struct {
	b     *Beat
	lease Lease
	wake  chan struct{} // capacity 1

	mu   sync.Mutex
	runs map[string][]waiting // by entry, in the order of their moments
}

// waiting is a run that is to be sent again.
type waiting struct {
	Run
	tries int
}

// patientTimeout is how long the broker may take for what it has not taken before.
const patientTimeout = 10 * time.Second

func newRetrier(b *Beat, lease Lease) *retrier {
	return &retrier{b: b, lease: lease, wake: make(chan struct{}, 1), runs: map[string][]waiting{}}
}

// has tells whether runs of an entry wait.
func (t *retrier) has(entry string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.runs[entry]) > 0
}

// add takes a run in, that was tried so often.
func (t *retrier) add(r Run, tries int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.runs[r.Entry]
	if slices.ContainsFunc(all, func(w waiting) bool { return w.ID == r.ID }) {
		return
	}
	t.runs[r.Entry] = append(all, waiting{r, tries})
	if tries == 0 {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// run is the actor. When ctx ends it goes on for stopGrace, unless the lease is lost; what waits then is sent by the beat that leads
// next.
func (t *retrier) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for failures := 0; ; {
		if failures > 0 {
			timer.Reset(min(retryDelay<<min(failures, 10), retryMost))
		}
		select {
		case <-ctx.Done():
			t.end(ctx)
			return
		case <-t.wake:
		case <-timer.C:
		}
		for more := true; more && ctx.Err() == nil; {
			sent, left := t.round(ctx)
			more = sent > 0 && left > 0
			if failures++; left == 0 {
				failures = 0
			}
		}
		if failures == 0 {
			timer.Reset(time.Hour)
		}
	}
}

// end sends what waits when the beat is stopped.
func (t *retrier) end(ctx context.Context) {
	if errors.Is(context.Cause(ctx), ErrNotLeading) {
		return
	}
	lasting, cancel := outlasting(ctx, t.lease)
	defer cancel()
	for tries := 0; lasting.Err() == nil; {
		dealt, left := t.round(lasting)
		if left == 0 {
			return
		}
		if dealt == 0 {
			tries = pause(lasting, tries)
		}
	}
}

// round tries some of the runs, in the order of their moments. It returns how many are dealt with, and how many wait.
func (t *retrier) round(ctx context.Context) (dealt, left int) {
	some, dropped := t.choose(t.b.now())
	done, away, err := dropped, []Run(nil), error(nil)
	if len(some) > 0 {
		var sent []Run
		sent, away, err = t.b.try(ctx, some, patientTimeout)
		done = append(done, sent...)
	}
	if ctx.Err() != nil {
		return 0, 0
	}
	if len(away) > 0 {
		t.b.log.Error("beat: the broker still does not take what was due", "runs", len(away), "entry", away[0].Entry, "error", err)
	}
	if retry(ctx, t.b.log, func() error { return t.lease.Done(ctx, done) }) != nil {
		return 0, 0
	}
	return len(done), t.forget(done, away)
}

// choose takes out what is past its deadline or missed by now, and returns it with a batch of what is to be tried.
func (t *retrier) choose(now time.Time) (some, dropped []Run) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []waiting
	for entry, runs := range t.runs {
		keep := runs[:0]
		for i, w := range runs {
			// What has failed and is followed by as many as the entry makes up for is missed.
			later := len(runs) - 1 - i
			if !w.Until.IsZero() && now.After(w.Until) || w.tries > 0 && w.most > 0 && later >= w.most {
				dropped = append(dropped, w.Run)
				continue
			}
			keep = append(keep, w)
		}
		if t.runs[entry] = keep; len(keep) == 0 {
			delete(t.runs, entry)
		}
		all = append(all, keep...)
	}
	for _, r := range dropped {
		t.b.stats.failed.Add(1)
		t.b.log.Warn("beat: a run that could not be sent in time is left out", "entry", r.Entry, "id", r.ID, "moment", r.Moment)
	}
	if len(all) > batch { // what is stuck must not keep the rest back
		slices.SortFunc(all, func(a, b waiting) int { return cmp.Or(cmp.Compare(a.tries, b.tries), a.Moment.Compare(b.Moment)) })
		all = all[:batch]
	}
	slices.SortFunc(all, func(a, b waiting) int { return a.Moment.Compare(b.Moment) })
	for _, w := range all {
		some = append(some, w.Run)
	}
	return some, dropped
}

// forget takes out what is done, counts the tries of the others, and returns how many wait.
func (t *retrier) forget(done, away []Run) (left int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	gone, tried := map[string]bool{}, map[string]bool{}
	for _, r := range done {
		gone[r.ID] = true
	}
	for _, r := range away {
		tried[r.ID] = true
	}
	for entry, runs := range t.runs {
		runs = slices.DeleteFunc(runs, func(w waiting) bool { return gone[w.ID] })
		for i := range runs {
			if tried[runs[i].ID] {
				runs[i].tries++
			}
		}
		if t.runs[entry] = runs; len(runs) == 0 {
			delete(t.runs, entry)
		}
		left += len(runs)
	}
	return left
}
