package worker

import "time"

// limit decides when runs may begin: a rate, a number of runs at once. The rooms whose jobs it holds back may be several.
// All of it is guarded by rooms.mu, its queue of those who wait included.
type limit interface {
	// wait is how long no run may begin: 0 if one may now, negative if that is not known; then the rooms are woken.
	wait(now time.Time) time.Duration
	// take begins a run, for which wait was 0.
	take(now time.Time)
	// ended tells of the end of a run and how long it took. True: the rooms should look again.
	ended(now time.Time, ran time.Duration) bool
	// pace estimates when the next run may begin and how far those after it lie apart.
	pace(now time.Time) (next, each time.Duration)
	// trust is how far ahead pace can be believed.
	trust(now time.Time) time.Duration
	// held is who waits for the limit.
	held() *line
}

// line is what waits for a limit.
type line struct {
	rooms   []*room
	waiting int // jobs in these rooms
}

func (l *line) held() *line { return l }

// wake lets the rooms look again.
func (l *line) wake() {
	for _, r := range l.rooms {
		r.wake()
	}
}
