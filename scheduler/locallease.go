package scheduler

import (
	"context"
	"slices"
	"time"
)

// localLease is that of a local store. It is lost only with the process.
type localLease struct {
	*Local
	unlock func()
}

// Lost is [Lease]'s.
func (*localLease) Lost() <-chan struct{} { return nil }

// Changed is [Lease]'s.
func (l *localLease) Changed() <-chan struct{} { return l.change }

// Pending is [Lease]'s.
func (l *localLease) Pending(context.Context) ([]Run, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []Run
	for _, r := range l.state.pending {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Run) int { return a.Moment.Compare(b.Moment) })
	return all, nil
}

// Due is [Lease]'s. Once a second it looks whether the files have changed.
func (l *localLease) Due(_ context.Context, now time.Time, limit int) ([]Record, time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.looked).Abs() >= fileInterval {
		before := l.looked
		l.looked = now
		if slices.ContainsFunc(l.files, (*File).Changed) {
			l.readFiles()
			if err := l.settle(l.changed(before, now)); err != nil {
				return nil, time.Time{}, err
			}
		}
	}
	due, next := l.table.Due(now, limit)
	return due, next, nil
}

// Counts are [Counter]'s.
func (l *localLease) Counts(context.Context) (Counts, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	paused := l.table.Paused()
	return Counts{Store: "local", Enabled: l.table.Len() - paused, Paused: paused}, nil
}

// Mark is [Lease]'s.
func (l *localLease) Mark(_ context.Context, marks []Mark) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries := make(map[string]kept, len(marks))
	var runs []Run
	for _, m := range marks {
		k := kept{State: m.State, paused: l.state.kept[m.Entry.Name].paused}
		if m.Pause {
			k.done = fingerprint(m.Entry)
		}
		entries[m.Entry.Name] = k
		runs = append(runs, m.Runs...)
	}
	if err := l.state.write(entries, runs, nil, true); err != nil {
		return err
	}
	for _, m := range marks {
		l.table.Moved(m)
	}
	return nil
}

// Done is [Lease]'s.
func (l *localLease) Done(_ context.Context, runs []Run) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := make([]string, len(runs))
	for i, r := range runs {
		ids[i] = r.ID
	}
	return l.state.write(nil, nil, ids, false)
}

// Rewind is [Lease]'s.
func (l *localLease) Rewind(_ context.Context, now time.Time, skew time.Duration) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := map[string]kept{}
	for r := range l.table.All() {
		if name := r.Entry.Name; r.State.LastRunAt.After(now.Add(skew)) {
			k := l.state.kept[name]
			k.LastRunAt = now
			changed[name] = k
		}
	}
	if err := l.state.write(changed, nil, nil, false); err != nil {
		return 0, err
	}
	for name, k := range changed {
		r, _ := l.table.Get(name)
		r.State = k.State
		l.table.Set(r)
	}
	return len(changed), nil
}

// Release is [Lease]'s.
func (l *localLease) Release(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leading = false
	l.state.close()
	l.unlock()
	return nil
}
