package scheduler

import "time"

// civil is what a clock shows, in seconds since 1970 began on that clock. It is no instant until a zone is known.
type civil int64

// latestOffset is more than any zone was ever away from UTC.
const latestOffset = 26 * time.Hour

func civilOf(t time.Time) civil {
	_, offset := t.Zone()
	return civil(t.Unix() + int64(offset))
}

// date is the time in UTC at which a clock in UTC shows it.
func (c civil) date() time.Time { return time.Unix(int64(c), 0).UTC() }

func (c civil) midnight() civil { return c - c%86400 - map[bool]civil{true: 86400}[c%86400 < 0] }

// period is a time in which a zone's clock is not changed.
type period struct {
	start, end time.Time // the zero time: there is no change before, or after
	offset     int64     // seconds east of UTC
}

func periodAt(t time.Time, zone *time.Location) period {
	t = t.In(zone)
	_, offset := t.Zone()
	p := period{offset: int64(offset)}
	p.start, p.end = t.ZoneBounds()
	return p
}

// shows is the instant of the period at which the clock shows c, whether the period has it or not.
func (p period) shows(c civil) time.Time { return time.Unix(int64(c)-p.offset, 0) }

// firstShowing is the first instant at which the clock of a zone shows c or a later time.
func firstShowing(c civil, zone *time.Location) time.Time {
	// Before this instant the clock cannot show c.
	at := c.date().Add(-latestOffset)
	for {
		p := periodAt(at, zone)
		instant := p.shows(c)
		switch {
		case instant.Before(at):
			return at
		case p.end.IsZero() || instant.Before(p.end):
			return instant
		}
		at = p.end
	}
}
