package scheduler

import (
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// Upcoming is when the entry will be sent from now on, at most n times, if it is not paused: what is overdue now, with what its
// policy says of missed moments, and then as it comes.
func (e *Entry) Upcoming(s State, now time.Time, n int) []time.Time {
	m := Mark{Entry: e, State: s}
	var all []time.Time
	for at := now; len(all) < n; {
		due := e.Due(m.State)
		if due.IsZero() {
			break
		}
		if due.After(at) {
			at = due
		}
		before := m.State.LastRunAt
		for range m.choose(at) {
			if all = append(all, at); len(all) == n || e.OneOff {
				return all
			}
		}
		if m.State.LastRunAt.Equal(before) {
			break
		}
	}
	return all
}

// RunNow is what the entry sends if it is told to run now, out of its turn: with an id of its own, and the headers of a run whose
// moment is now. The entry's state does not change by it.
func (e *Entry) RunNow(now time.Time) (task.Signature, error) {
	r, err := e.run(now, now, 0)
	if err != nil {
		return task.Signature{}, err
	}
	return r.Task.With(task.ID(protocol.NewID())), nil
}
