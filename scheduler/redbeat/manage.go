package redbeat

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/scheduler"
)

// source is what records say of where they are defined; those of beat_schedule say so.
const source = "redbeat"

// Entries is [scheduler.Store]'s.
func (s *Store) Entries(ctx context.Context) iter.Seq2[scheduler.Record, error] {
	return func(yield func(scheduler.Record, error) bool) {
		stop := errors.New("enough")
		err := s.each(ctx, func(all []member) error {
			raws, errs, err := s.fetch(ctx, all)
			if err != nil {
				return err
			}
			for i, m := range all {
				var rec scheduler.Record
				err := errs[i]
				switch {
				case err != nil:
					err = &scheduler.EntryError{Entry: m.name, Err: err}
				case raws[i].definition == "":
					continue
				default:
					rec, err = s.codec.read(m.name, raws[i])
				}
				if !yield(rec, err) {
					return stop
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, stop) {
			yield(scheduler.Record{}, fmt.Errorf("redbeat: entries: %w", err))
		}
	}
}

// each calls do with all members, some hundred at a time, in no order.
func (s *Store) each(ctx context.Context, do func([]member) error) error {
	told := map[string]bool{} // a scan may tell a member twice
	for cursor := uint64(0); ; {
		values, next, err := s.client.ZScan(ctx, s.keys.schedule, cursor, "", page).Result()
		if err != nil {
			return err
		}
		var all []member
		for i := 0; i+1 < len(values); i += 2 {
			if name, ok := s.keys.name(values[i]); ok && !told[name] {
				told[name] = true
				all = append(all, member{zset: s.keys.schedule, key: values[i], name: name})
			}
		}
		if len(all) > 0 {
			if err := do(all); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// Entry is [scheduler.Store]'s.
func (s *Store) Entry(ctx context.Context, name string) (scheduler.Record, error) {
	r, err := s.raw(ctx, name)
	if err != nil {
		return scheduler.Record{}, err
	}
	if r.definition == "" {
		return scheduler.Record{}, scheduler.ErrNoEntry
	}
	rec, err := s.codec.read(name, r)
	if err == nil {
		var static bool
		if static, err = s.client.SIsMember(ctx, s.keys.statics, name).Result(); static {
			rec.Source = "beat_schedule"
		}
	}
	return rec, err
}

func (s *Store) raw(ctx context.Context, name string) (raw, error) {
	if name == "" || reserved(name) {
		return raw{}, scheduler.ErrNoEntry
	}
	raws, errs, err := s.fetch(ctx, []member{{key: s.keys.entry(name), name: name}})
	if err == nil {
		err = errs[0]
	}
	if err != nil {
		return raw{}, fmt.Errorf("redbeat: entry %.200q: %w", name, err)
	}
	return raws[0], nil
}

// Put is [scheduler.Store]'s.
func (s *Store) Put(ctx context.Context, entries ...*scheduler.Entry) error {
	if len(entries) == 1 {
		return s.put(ctx, entries[0], nil)
	}
	if len(entries) == 0 {
		return nil
	}
	keys := make([]string, len(entries))
	for i, e := range entries {
		if err := check(e); err != nil {
			return err
		}
		if keys[i] = s.keys.entry(e.Name); slices.Contains(keys[:i], keys[i]) {
			return &scheduler.EntryError{Entry: e.Name, Field: "name", Err: errors.New("there are two of it")}
		}
	}
	if err := putScript.Load(ctx, s.client).Err(); err != nil {
		return fmt.Errorf("redbeat: entries: %w", err)
	}
	for range mostTries {
		err := s.client.Watch(ctx, func(tx *redis.Tx) error { return s.putTogether(ctx, tx, entries) }, keys...)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, redis.TxFailedErr):
			return fmt.Errorf("redbeat: entries: %w", err)
		}
	}
	return errors.New("redbeat: entries: others change them all the time")
}

// putTogether stores entries in one transaction of Redis, which fails if somebody changes one of them meanwhile.
func (s *Store) putTogether(ctx context.Context, tx *redis.Tx, entries []*scheduler.Entry) error {
	members := make([]member, len(entries))
	for i, e := range entries {
		members[i] = member{key: s.keys.entry(e.Name), name: e.Name}
	}
	olds, errs, err := s.fetch(ctx, members)
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	var scripts [][2]any
	for i, e := range entries {
		r, write, err := s.replace(e, olds[i], false)
		if err != nil {
			return err
		}
		keys, args, err := s.putArguments(write, olds[i], r, nil)
		if err != nil {
			return err
		}
		scripts = append(scripts, [2]any{keys, args})
	}
	_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for _, x := range scripts {
			putScript.EvalSha(ctx, p, x[0].([]string), x[1].([]any)...)
		}
		return nil
	})
	return err
}

// put stores an entry: one of beat_schedule if it is given the leader's lock, and then only as long as that is held.
func (s *Store) put(ctx context.Context, e *scheduler.Entry, by *lock) error {
	if err := check(e); err != nil {
		return err
	}
	return s.change(ctx, e.Name, by, func(old raw) (raw, *scheduler.Entry, error) { return s.replace(e, old, by != nil) })
}

// replace is what becomes of an entry that is stored in the place of an old one; static: by the leader, as one of beat_schedule.
func (s *Store) replace(e *scheduler.Entry, old raw, static bool) (raw, *scheduler.Entry, error) {
	write := e
	before, err := s.codec.read(e.Name, old)
	known := old.definition != "" && err == nil
	if static && known && before.Entry.Paused && !e.Paused { // somebody has paused it since
		paused := *e
		paused.Paused = true
		write = &paused
	}
	r, err := s.codec.write(write, old)
	if err != nil {
		return raw{}, nil, err
	}
	if _, err := readMeta(old.meta); old.meta == "" || err != nil || known && before.Entry.Paused && !write.Paused {
		r.meta, err = s.runNow(old.meta)
		if err != nil {
			return raw{}, nil, err
		}
	}
	return r, write, nil
}

// runNow is a meta after which an entry is next sent at its schedule's next moment.
func (s *Store) runNow(meta string) (string, error) {
	state, _ := readMeta(meta)
	state.LastRunAt = time.Now()
	return writeMeta(state, meta)
}

// Pause is [scheduler.Store]'s.
func (s *Store) Pause(ctx context.Context, name string, paused bool) error {
	return s.change(ctx, name, nil, func(old raw) (raw, *scheduler.Entry, error) {
		if old.definition == "" {
			return raw{}, nil, scheduler.ErrNoEntry
		}
		before, err := s.codec.read(name, old)
		if err != nil {
			return raw{}, nil, err
		}
		r, err := s.codec.pause(old, paused)
		if err == nil && before.Entry.Paused && !paused {
			r.meta, err = s.runNow(old.meta)
		}
		e := *before.Entry
		e.Paused = paused
		return r, &e, err
	})
}

// mostTries bounds how often a change is tried again because somebody else has changed the entry.
const mostTries = 100

// change reads an entry, and writes what becomes of it unless it was changed meanwhile. by is as for put.
func (s *Store) change(ctx context.Context, name string, by *lock, to func(old raw) (raw, *scheduler.Entry, error)) error {
	for range mostTries {
		old, err := s.raw(ctx, name)
		if err != nil {
			return err
		}
		r, e, err := to(old)
		if err != nil {
			return err
		}
		keys, args, err := s.putArguments(e, old, r, by)
		if err != nil {
			return err
		}
		reply, err := putScript.Run(ctx, s.client, keys, args...).Int()
		switch {
		case err != nil:
			return fmt.Errorf("redbeat: entry %.200q: %w", name, err)
		case reply < 0:
			return scheduler.ErrNotLeading
		case reply > 0:
			return nil
		}
	}
	return fmt.Errorf("redbeat: entry %.200q: others change it all the time", name)
}

// putArguments are those of putScript.
func (s *Store) putArguments(e *scheduler.Entry, old, r raw, by *lock) (keys []string, args []any, err error) {
	state, err := readMeta(r.meta)
	if err != nil {
		return nil, nil, &scheduler.EntryError{Entry: e.Name, Field: metaField, Err: err}
	}
	theirs, ours, listed, token := any(score(e.Due(state))), any(""), "", ""
	if s.codec.alone(r) {
		theirs, ours = -1, theirs
	}
	if by != nil {
		listed, token = e.Name, by.token
	}
	return []string{s.keys.schedule, s.keys.due, s.keys.entry(e.Name), s.keys.statics, s.config.LockKey},
		[]any{old.definition, old.meta, old.extra, r.definition, r.meta, r.extra, theirs, ours, listed, token}, nil
}

// Remove is [scheduler.Store]'s.
func (s *Store) Remove(ctx context.Context, name string) error {
	return s.remove(ctx, name, "")
}

// remove removes an entry, if a token is given only as long as the lock has it.
func (s *Store) remove(ctx context.Context, name, token string) error {
	if name == "" || reserved(name) {
		return scheduler.ErrNoEntry
	}
	n, err := removeScript.Run(ctx, s.client, []string{s.keys.schedule, s.keys.due, s.keys.entry(name), s.keys.statics, s.config.LockKey}, name, token).Int()
	switch {
	case err != nil:
		return fmt.Errorf("redbeat: entry %.200q: %w", name, err)
	case n < 0:
		return scheduler.ErrNotLeading
	case n == 0:
		return scheduler.ErrNoEntry
	}
	return nil
}

// serverError is err unless it is the reply to a single command, which is about one entry.
func serverError(err error) error {
	var refused redis.Error
	if errors.As(err, &refused) && redisconn.Classify(err) != redisconn.Unavailable {
		return nil
	}
	return err
}
