package scheduler

import "time"

// wallClock compares the wall clock with the time that passes, to see when somebody sets it.
type wallClock struct {
	now       func() time.Time
	begun     time.Time     // with the monotonic clock
	wall      time.Time     // at begun
	deviation time.Duration // as it was last seen
}

// tolerated is by how much the clock may be set without anybody noticing: NTP slews, virtual machines drift.
const tolerated = time.Second

func newWallClock(now func() time.Time) *wallClock {
	return &wallClock{now: now, begun: time.Now(), wall: now().Round(0)}
}

// jumped is by how much the wall clock was set since the last call, back if it is negative; 0: it was not.
func (c *wallClock) jumped() time.Duration {
	deviation := c.now().Round(0).Sub(c.wall) - time.Since(c.begun)
	by := deviation - c.deviation
	if by.Abs() < tolerated {
		return 0
	}
	c.deviation = deviation
	return by
}
