package scheduler

import (
	"fmt"
	"time"
)

// Interval runs again and again after a time that passes: celery.schedules.schedule, whose every may be a number of seconds.
type Interval struct {
	every    time.Duration
	relative bool
	zone     *time.Location
}

// longestInterval is a hundred years; a time.Duration does not hold three.
const longestInterval = 100 * 365 * 24 * time.Hour

// Every makes an interval, from a microsecond to a hundred years.
func Every(every time.Duration) (*Interval, error) {
	if every < time.Microsecond || every > longestInterval {
		return nil, fmt.Errorf("every: %v is not allowed: it takes 1 microsecond to 100 years", every)
	}
	return &Interval{every: every, zone: time.UTC}, nil
}

// EveryRelative makes an interval that ends on whole days, hours, minutes or seconds of a zone's clock, the largest of them
// that is not longer than the interval: Celery's relative=True. It takes a second to a hundred years; a nil zone is UTC.
func EveryRelative(every time.Duration, zone *time.Location) (*Interval, error) {
	i, err := Every(every)
	if err == nil && every < time.Second {
		err = fmt.Errorf("every: %v is not allowed with relative: it takes at least a second", every)
	}
	if err != nil {
		return nil, err
	}
	if i.relative = true; zone != nil {
		i.zone = zone
	}
	return i, nil
}

// Every is how long the interval is.
func (i *Interval) Every() time.Duration { return i.every }

// Relative tells whether it ends on whole units of the clock, and of which zone; see [EveryRelative].
func (i *Interval) Relative() (zone *time.Location, relative bool) { return i.zone, i.relative }

// Next is when the interval that begins at t, the last run, is over.
func (i *Interval) Next(t time.Time) time.Time {
	end := t.Add(i.every)
	if !i.relative {
		return end
	}
	if i.every >= 24*time.Hour { // by the clock, for which a day may be longer or shorter
		const day = civil(24 * time.Hour / time.Second)
		shown := civilOf(t.In(i.zone)) + civil(i.every/time.Second)
		for shown = shown.midnight(); ; shown += day {
			if end = firstShowing(shown, i.zone); end.After(t) {
				return end.In(t.Location())
			}
		}
	}
	_, minutes, seconds := end.In(i.zone).Clock()
	end = end.Add(-time.Duration(end.Nanosecond()))
	if i.every >= time.Minute {
		end = end.Add(-time.Duration(seconds) * time.Second)
	}
	if i.every >= time.Hour {
		end = end.Add(-time.Duration(minutes) * time.Minute)
	}
	return end
}

func (i *Interval) String() string {
	return fmt.Sprintf("<freq: %v>", i.every)
}
