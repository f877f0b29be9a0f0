package redbeat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/scheduler"
)

// Mark is [scheduler.Lease]'s. It is tried once: whether a request whose reply was lost has marked anything is told by Pending and
// Due.
func (l *lease) Mark(ctx context.Context, marks []scheduler.Mark) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mark(ctx, marks)
}

func (l *lease) mark(ctx context.Context, marks []scheduler.Mark) error {
	if l.isLost() {
		return scheduler.ErrNotLeading
	}
	k := l.store.keys
	keys := make([]string, 0, 5+len(marks))
	keys = append(keys, l.store.config.LockKey, k.schedule, k.due, k.pending, k.latest)
	args := make([]any, 0, 2+8*len(marks))
	args = append(args, l.token, int64(0))
	after := make([]seen, len(marks))
	var latest int64
	var runs []any
	for i, m := range marks {
		before, ok := l.seen[m.Entry.Name]
		if !ok || !before.waiting {
			l.reset()
			return scheduler.ErrChanged
		}
		s, definition, err := l.after(before, m)
		if err != nil {
			return err
		}
		alone, extra := "0", ""
		if l.store.codec.alone(before.raw) {
			alone = "1"
			if m.Pause {
				extra = s.raw.extra
			}
		}
		after[i] = s
		keys = append(keys, k.entry(m.Entry.Name))
		args = append(args, before.raw.meta, before.raw.digest(), s.raw.meta, s.score, alone, definition, extra)
		latest = max(latest, m.State.LastRunAt.UnixMilli())
		for _, r := range m.Runs {
			text, err := l.writeRun(r)
			if err != nil {
				return err
			}
			runs = append(runs, r.ID, text)
		}
	}
	args[1] = max(latest, 0)
	reply, err := markScript.Run(ctx, l.store.client, keys, append(args, runs...)...).Int()
	switch {
	case err != nil:
		l.reset() // nobody knows whether it was done
		return fmt.Errorf("redbeat: mark: %w", err)
	case reply < 0:
		return scheduler.ErrNotLeading
	case reply > 0:
		l.reset() // others may have changed, too, which the reply does not say
		return scheduler.ErrChanged
	}
	for i, m := range marks {
		if m.Pause || m.Next.IsZero() || m.Next.After(l.looked.Add(ahead)) {
			l.forget(m.Entry.Name)
			continue
		}
		m.State.LastRunAt = m.State.LastRunAt.Truncate(time.Microsecond)
		l.keep(scheduler.Record{Entry: m.Entry, State: m.State, Source: source}, m.Next, after[i])
	}
	return nil
}

// after is what is known of an entry after its mark. definition is the new one, "" if it stays.
func (l *lease) after(before seen, m scheduler.Mark) (s seen, definition string, err error) {
	s = before
	if s.raw.meta, err = writeMeta(m.State, before.raw.meta); err != nil {
		return seen{}, "", &scheduler.EntryError{Entry: m.Entry.Name, Err: err}
	}
	if len(m.Runs) == 0 && m.State.LastRunAt.IsZero() {
		s.raw.meta = before.raw.meta
	}
	if s.score = score(m.Next); m.Pause {
		meta := s.raw.meta
		if s.raw, err = l.store.codec.pause(before.raw, true); err != nil {
			return seen{}, "", &scheduler.EntryError{Entry: m.Entry.Name, Err: err}
		}
		s.raw.meta = meta
		if s.raw.definition != before.raw.definition {
			definition = s.raw.definition
		}
	}
	return s, definition, nil
}

// score is where RedBeat has what is due at a time: whole seconds, and below zero what never is.
func score(at time.Time) float64 {
	if at.IsZero() {
		return -1
	}
	return float64(max(at.Unix(), 0))
}

// reset forgets all that was read.
func (l *lease) reset() {
	l.near, l.seen, l.looked = scheduler.NewTable(), map[string]seen{}, time.Time{}
}

// Done is [scheduler.Lease]'s.
func (l *lease) Done(ctx context.Context, runs []scheduler.Run) error {
	args := make([]any, 1, 1+len(runs))
	args[0] = l.token
	for _, r := range runs {
		args = append(args, r.ID)
	}
	if err := leading(doneScript.Run(ctx, l.store.client, []string{l.store.config.LockKey, l.store.keys.pending}, args...).Int()); err != nil {
		return fmt.Errorf("redbeat: done: %w", err)
	}
	return nil
}

// youngest is how old a run of another beat must be, where there is no lock, to be taken for left behind.
const youngest = 15 * time.Second

// Pending is [scheduler.Lease]'s. One that cannot be read is moved to a list of its own and logged.
func (l *lease) Pending(ctx context.Context) ([]scheduler.Run, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reset() // it is called when something may be otherwise than this lease knows
	reply, err := pendingScript.Run(ctx, l.store.client, []string{l.store.config.LockKey, l.store.keys.pending}, l.token).Result()
	if err != nil {
		return nil, fmt.Errorf("redbeat: pending: %w", err)
	}
	all, ok := reply.([]any)
	if !ok {
		return nil, scheduler.ErrNotLeading
	}
	var runs []scheduler.Run
	for i := 0; i+1 < len(all); i += 2 {
		id, _ := all[i].(string)
		text, _ := all[i+1].(string)
		run, by, err := readRun(id, text)
		if err != nil {
			l.store.log.Error("beat: a run that was marked cannot be read, and is set aside", "id", id, "list", l.store.keys.quarantine, "run", text[:min(len(text), 2000)], "error", err)
			if err := asideScript.Run(ctx, l.store.client, []string{l.store.keys.pending, l.store.keys.quarantine}, id).Err(); err != nil {
				return nil, fmt.Errorf("redbeat: pending: %w", err)
			}
			continue
		}
		if l.token == "" && by.lease != l.id && time.Since(by.at).Abs() < youngest { // its beat may be sending it
			if l.again.IsZero() {
				l.again = time.Now().Add(youngest)
			}
			continue
		}
		runs = append(runs, run)
	}
	slices.SortFunc(runs, func(a, b scheduler.Run) int { return a.Moment.Compare(b.Moment) })
	return runs, nil
}

// Rewind is [scheduler.Lease]'s. All entries are looked at only if the latest moment that was marked is in the future, and once after
// another than Gelery may have led.
func (l *lease) Rewind(ctx context.Context, now time.Time, skew time.Duration) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	latest, err := l.store.client.Get(ctx, l.store.keys.latest).Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("redbeat: rewind: %w", err)
	}
	latestAt := time.UnixMilli(latest)
	future := latestAt.After(now.Add(skew))
	if !future && !l.scan {
		return 0, nil
	}
	n, err := l.rewind(ctx, now, skew)
	if err == nil && future {
		err = l.store.client.Set(ctx, l.store.keys.latest, strconv.FormatInt(now.UnixMilli(), 10), 0).Err()
	}
	if err != nil {
		if errors.Is(err, scheduler.ErrNotLeading) {
			return 0, err
		}
		return 0, fmt.Errorf("redbeat: rewind: %w", err)
	}
	l.scan = false
	l.store.mu.Lock()
	l.store.led = true
	l.store.mu.Unlock()
	return n, nil
}

func (l *lease) rewind(ctx context.Context, now time.Time, skew time.Duration) (count int, err error) {
	l.reset()
	err = l.store.each(ctx, func(all []member) error {
		late, err := l.inFuture(ctx, all, now.Add(skew))
		if err != nil || len(late) == 0 {
			return err
		}
		raws, errs, err := l.store.fetch(ctx, late)
		if err != nil {
			return err
		}
		var marks []scheduler.Mark
		for i, m := range late {
			if errs[i] != nil || raws[i].definition == "" {
				continue
			}
			rec, err := l.store.codec.read(m.name, raws[i])
			if err != nil || !rec.State.LastRunAt.After(now.Add(skew)) {
				continue
			}
			l.keep(rec, now, seen{score: m.score, raw: raws[i], at: now})
			rec.State.LastRunAt = now
			marks = append(marks, scheduler.Mark{Entry: rec.Entry, State: rec.State, Next: rec.Entry.Due(rec.State)})
		}
		count += len(marks)
		if len(marks) == 0 {
			return nil
		}
		err = l.mark(ctx, marks)
		l.reset()
		return err
	})
	return count, err
}

// inFuture are the members whose last run is later than some time.
func (l *lease) inFuture(ctx context.Context, all []member, than time.Time) (late []member, err error) {
	replies := make([]*redis.StringCmd, len(all))
	_, err = l.store.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, m := range all {
			replies[i] = p.HGet(ctx, m.key, metaField)
		}
		return nil
	})
	if err := serverError(err); err != nil {
		return nil, err
	}
	for i, reply := range replies {
		if s, err := readMeta(reply.Val()); err == nil && s.LastRunAt.After(than) {
			late = append(late, all[i])
		}
	}
	return late, nil
}
