package worker

import "time"

// concurrencyLimit is a limit of runs at once.
type concurrencyLimit struct {
	line
	most    int
	running int

	first   time.Time     // when a run first began
	changed time.Time     // when a run last ended, or one began while there was none
	average time.Duration // of a run, later ones weighing more
	seen    bool          // one has ended
}

// What is thought of runs that have not been watched for long.
const (
	unknownRun = time.Second
	leastTrust = time.Second
	mostTrust  = 5 * time.Minute
)

func (l *concurrencyLimit) wait(time.Time) time.Duration {
	if l.running < l.most {
		return 0
	}
	return -1
}

func (l *concurrencyLimit) take(now time.Time) {
	if l.running == 0 {
		l.changed = now
	}
	if l.first.IsZero() {
		l.first = now
	}
	l.running++
}

func (l *concurrencyLimit) ended(now time.Time, ran time.Duration) bool {
	l.running--
	l.changed = now
	if l.seen {
		l.average += (ran - l.average) / 8
	} else {
		l.average, l.seen = ran, true
	}
	return true
}

// pace guesses from the runs that ended, and from how long none has.
func (l *concurrencyLimit) pace(now time.Time) (next, each time.Duration) {
	each = l.likelyRun(now) / time.Duration(l.most)
	if l.running < l.most {
		return 0, each
	}
	return each, each
}

// likelyRun is how long a run may take.
func (l *concurrencyLimit) likelyRun(now time.Time) time.Duration {
	run := l.average
	if !l.seen {
		run = unknownRun
	}
	if l.running > 0 {
		run = max(run, now.Sub(l.changed))
	}
	return run
}

// trust is as long as runs have been watched: the past does not tell more.
func (l *concurrencyLimit) trust(now time.Time) time.Duration {
	if l.first.IsZero() {
		return leastTrust
	}
	return min(max(now.Sub(l.first), leastTrust), mostTrust)
}
