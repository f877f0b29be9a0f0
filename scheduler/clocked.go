package scheduler

import "time"

// Clocked runs once, at a time: ClockedSchedule of django-celery-beat. The time's zone is that of the entry.
type Clocked struct{ At time.Time }

// Next is At, or the zero time if that is not after t.
func (c Clocked) Next(t time.Time) time.Time {
	if c.At.After(t) {
		return c.At
	}
	return time.Time{}
}

func (c Clocked) String() string { return "<clocked: " + c.At.Format(time.RFC3339) + ">" }

// zone is where the clock stands; nil if that has no name by which it could be read again.
func (c Clocked) zone() *time.Location {
	named, err := zoneNamed(c.At.Location().String())
	if err != nil {
		return nil
	}
	_, offset := c.At.Zone()
	if _, its := c.At.In(named).Zone(); its != offset {
		return nil
	}
	return named
}
