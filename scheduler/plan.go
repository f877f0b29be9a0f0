package scheduler

import (
	"errors"
	"slices"
	"time"
)

// fastest is how soon an entry may be due again: whatever its schedule says, it sends no more often than that.
const fastest = 100 * time.Millisecond

// plan tells what becomes of an entry that is due at now. Errors are those of single runs, which are left out.
func plan(r Record, now time.Time) (Mark, []error) {
	e := r.Entry
	m := Mark{Entry: e, State: r.State}
	var errs []error
	for _, moment := range m.choose(now) {
		run, err := e.run(moment, now, m.State.TotalRunCount+1)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		m.State.TotalRunCount++
		m.Runs = append(m.Runs, run)
		if e.OneOff {
			break
		}
	}
	m.Pause = e.OneOff && len(m.Runs) > 0
	if m.Next = e.Due(m.State); m.Next.IsZero() {
		if !e.End.IsZero() || isClocked(e.Schedule) {
			m.Pause = true
		} else {
			errs = append(errs, &EntryError{e.Name, "schedule", errors.New("it has no next moment")})
		}
	} else if soonest := now.Add(fastest); m.Next.Before(soonest) {
		m.Next = soonest
	}
	return m, errs
}

func isClocked(s Schedule) bool { _, ok := s.(Clocked); return ok }

// choose tells which moments are sent, and moves the state's last moment to the latest that is dealt with.
func (m *Mark) choose(now time.Time) []time.Time {
	e := m.Entry
	after := e.after(m.State)
	if after.IsZero() && !isClocked(e.Schedule) {
		m.State.LastRunAt = now
		return []time.Time{now}
	}
	until := now
	if !e.End.IsZero() && e.End.Before(until) {
		until = e.End
	}
	most := max(1, int(e.Missed))
	due := moments(e.Schedule, after, until, most+1) // with a jitter the latest may not be due yet
	due = slices.DeleteFunc(due, func(moment time.Time) bool { return moment.Add(e.delay(moment)).After(now) })
	if len(due) == 0 {
		return nil
	}
	m.State.LastRunAt = due[len(due)-1]
	cut := max(0, len(due)-most)
	m.leftOut, due = slices.Clone(due[:cut]), due[cut:]
	if limit := e.deadline(); limit > 0 {
		due = slices.DeleteFunc(due, func(moment time.Time) bool {
			late := now.Sub(moment.Add(e.delay(moment))) > limit
			if late {
				m.leftOut = append(m.leftOut, moment)
			}
			return late
		})
	}
	return due
}
