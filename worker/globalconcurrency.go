package worker

import (
	"context"
	"time"

	"github.com/gelery/gelery/internal/sharedlimit"
)

// How a worker deals with runs at once that it shares with others.
const (
	runsRenewal = time.Second            // those it has are told so often
	runsFresh   = 8 * time.Second        // since this is less than the lease, nobody else has them yet
	runsTurn    = 500 * time.Millisecond // it goes on so long with what it has, though others have nothing
	runsIdle    = 100 * time.Millisecond // what nobody here has used for so long is given back
	runsPause   = 100 * time.Millisecond // between two questions while all are taken, at first
	runsPauses  = 250 * time.Millisecond // and at last; longer the more workers there are
)

// sharedConcurrency is a limit of runs at once in all workers together. What it has it uses again and again, unless other
// workers have none: then it gives back as many as they are, one after the other, as runs end.
type sharedConcurrency struct {
	concurrencyLimit // its most is that of all
	shared
	has      int       // runs that Redis has noted for this worker
	told     time.Time // when it did
	starving int       // workers that have none and want some
	since    time.Time // when that was first heard
	workers  int
}

// usable is how many of the runs it has it may still begin anew.
func (l *sharedConcurrency) usable(now time.Time) int {
	switch {
	case now.Sub(l.told) > runsFresh:
		return 0
	case l.starving > 0 && now.Sub(l.since) > runsTurn:
		return l.has - l.starving
	}
	return l.has
}

func (l *sharedConcurrency) wait(now time.Time) time.Duration {
	if l.running < l.usable(now) {
		return 0
	}
	l.nudge()
	return -1
}

func (l *sharedConcurrency) ended(now time.Time, ran time.Duration) bool {
	l.concurrencyLimit.ended(now, ran)
	usable := l.usable(now)
	if l.running >= usable || l.waiting == 0 {
		l.nudge()
	}
	return l.running < usable
}

func (l *sharedConcurrency) pace(now time.Time) (next, each time.Duration) {
	each = l.likelyRun(now) / time.Duration(max(1, l.has, l.most/max(1, l.workers)))
	if l.running < l.usable(now) {
		return 0, each
	}
	return each, each
}

// next tells when to ask, if ever: the zero time stands for never.
func (l *sharedConcurrency) next(now, pause time.Time) (at time.Time) {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	if l.has > 0 || l.running > 0 {
		at = l.told.Add(runsRenewal)
	}
	if idle := l.changed.Add(runsIdle); l.running < l.has && l.waiting == 0 && idle.Before(at) {
		at = idle
	}
	usable := l.usable(now)
	if l.running < l.has && l.running >= usable || l.waiting > 0 && l.running >= usable {
		if pause.Before(now) {
			pause = now
		}
		if at.IsZero() || pause.Before(at) {
			at = pause
		}
	}
	return at
}

// state is what Redis is to be told: the runs that are not to be given back, and how many are wanted. Who gives some back
// because others have none wants no more for now.
func (l *sharedConcurrency) state() (has, want int) {
	slots := l.all.w.slots.count()
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	want = min(l.running+l.waiting, l.most, slots)
	usable := l.usable(time.Now())
	has = max(l.running, min(usable, want))
	if usable < l.has && has < l.has {
		return has, has
	}
	return has, max(has, want)
}

// run tells Redis what the worker has, asks for what it needs, and gives back what others need more.
func (l *sharedConcurrency) run(ctx context.Context) {
	var pause time.Time // before which it is no use to ask
	wait := runsPause
	for {
		now := time.Now()
		if at := l.next(now, pause); at.IsZero() || at.After(now) {
			if !l.rest(ctx, at) {
				return
			}
			continue
		}
		var has int
		var got sharedlimit.Runs
		asked := now
		if !l.all.limits.Do(ctx, "share the runs of "+l.name+", which wait", func(ctx context.Context) (err error) {
			var want int
			asked = time.Now()
			has, want = l.state()
			got, err = l.all.limits.Hold(ctx, l.name, l.most, has, want)
			return err
		}) {
			return
		}
		if got.N > has {
			wait = runsPause
		}
		pause = time.Now().Add(about(wait))
		wait = min(2*wait, runsPauses*time.Duration(1+got.Workers/8))
		l.note(got, asked)
	}
}

// note remembers what Redis has answered to a question.
func (l *sharedConcurrency) note(got sharedlimit.Runs, asked time.Time) {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	if got.Starving > 0 && (l.starving == 0 || l.has == 0) {
		l.since = asked
	}
	l.has, l.told, l.starving, l.workers = got.N, asked, got.Starving, got.Workers
	if l.running < l.usable(asked) {
		l.wake()
	}
}

// close gives back all there is.
func (l *sharedConcurrency) close(ctx context.Context) {
	if l.told.IsZero() {
		return
	}
	if _, err := l.all.limits.Hold(ctx, l.name, l.most, 0, 0); err != nil {
		l.all.w.log.Warn("the runs of a shared limit were not given back, others get them when their lease ends", "limit", l.name, "error", err)
	}
}
