package scheduler

import "time"

// next is s.Next, of a schedule that may be the user's own: one that panics or goes back has no next moment.
func next(s Schedule, after time.Time) (moment time.Time) {
	defer func() {
		if recover() != nil {
			moment = time.Time{}
		}
	}()
	if moment = s.Next(after); !moment.After(after) {
		return time.Time{}
	}
	return moment
}

// latest is the last moment of a schedule after one time and not after another; the zero time if there is none. It asks the
// schedule about as often as there are bits in the span.
func latest(s Schedule, after, until time.Time) time.Time {
	first := next(s, after)
	if first.IsZero() || first.After(until) {
		return time.Time{}
	}
	if i, ok := s.(*Interval); ok && !i.relative { // its moments depend on where it begins
		return until.Add(-(until.Sub(first) % i.every))
	}
	last := first
	for low, high := first, until; ; {
		following := next(s, last)
		if following.IsZero() || following.After(until) {
			return last
		}
		last, low = following, following
		// In the middle, is there a later one?
		for high.Sub(low) > 1 {
			middle := low.Add(high.Sub(low) / 2)
			m := next(s, middle)
			if !m.IsZero() && !m.After(until) {
				last, low = m, m
				break
			}
			high = middle
		}
	}
}

// moments are the latest n moments of a schedule after one time and not after another, in their order: of those before the latest, the
// last one in each of the clock's tenths of a second (fastest), and none in that of after.
func moments(s Schedule, after, until time.Time, n int) []time.Time {
	var all []time.Time
	for len(all) < n {
		m := latest(s, after, until)
		if m.IsZero() || len(all) > 0 && m.Truncate(fastest).Equal(after.Truncate(fastest)) {
			break
		}
		all = append(all, m)
		until = m.Truncate(fastest).Add(-1)
	}
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	return all
}
