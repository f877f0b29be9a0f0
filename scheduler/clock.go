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

// jumped tells whether the wall clock was set since the last call.
func (c *wallClock) jumped() bool {
	deviation := c.now().Round(0).Sub(c.wall) - time.Since(c.begun)
	if (deviation - c.deviation).Abs() < tolerated {
		return false
	}
	c.deviation = deviation
	return true
}
