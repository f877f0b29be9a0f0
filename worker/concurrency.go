package worker

import "time"

// concurrencyLimit is a limit of runs at once.
type concurrencyLimit struct {
	line
	most    int
	running int

	average time.Duration // of a run, later ones weighing more
	changed time.Time     // when a run last ended, or the first began
}

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
	l.running++
}

func (l *concurrencyLimit) ended(now time.Time, ran time.Duration) bool {
	l.running--
	l.changed = now
	l.average = averaged(l.average, ran)
	return true
}

// averaged is a moving average of about eight.
func averaged(average, value time.Duration) time.Duration {
	if average == 0 {
		return value
	}
	return average + (value-average)/8
}

// pace guesses from the runs that ended, and from how long none has.
func (l *concurrencyLimit) pace(now time.Time) (next, each time.Duration) {
	if l.running > 0 {
		each = now.Sub(l.changed)
	}
	each = max(each, l.average) / time.Duration(l.most)
	if l.running < l.most {
		return 0, each
	}
	return each, each
}

func (l *concurrencyLimit) exact() bool { return false }
