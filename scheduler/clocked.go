package scheduler

import "time"

// Clocked runs once, at a time: ClockedSchedule of django-celery-beat.
type Clocked struct{ At time.Time }

// Next is At, or the zero time if that is not after t.
func (c Clocked) Next(t time.Time) time.Time {
	if c.At.After(t) {
		return c.At
	}
	return time.Time{}
}

func (c Clocked) String() string { return "<clocked: " + c.At.Format(time.RFC3339) + ">" }
