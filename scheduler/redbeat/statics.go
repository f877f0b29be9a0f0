package redbeat

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/scheduler"
)

// putStatic stores the entries of beat_schedule and removes those that are no longer in it, as RedBeat does at its start.
func (s *Store) putStatic(ctx context.Context, by *lock) error {
	if s.config.Static == nil {
		return nil
	}
	before, err := s.client.SMembers(ctx, s.keys.statics).Result()
	if err != nil {
		return err
	}
	if len(s.config.Static) > 0 {
		if err := putScript.Load(ctx, s.client).Err(); err != nil {
			return err
		}
	}
	known, there, added := set(before), set(s.config.Unreadable), 0
	for some := range slices.Chunk(s.config.Static, staticChunk) {
		errs, err := s.putSome(ctx, some, known, by)
		if err != nil {
			return err
		}
		for i, e := range some {
			there[e.Name] = true
			if err := errs[i]; err != nil {
				s.log.Error("beat: an entry of beat_schedule cannot be stored", "error", err)
			} else if !known[e.Name] {
				added++
			}
		}
	}
	if added > 0 {
		s.log.Info("beat: entries of beat_schedule were not in Redis, and are stored", "entries", added)
	}
	for _, name := range before {
		if there[name] {
			continue
		}
		s.log.Info("beat: an entry is no longer in beat_schedule, and is removed", "entry", name)
		if err := s.remove(ctx, name, by.token); err != nil && !errors.Is(err, scheduler.ErrNoEntry) {
			return err
		}
	}
	return nil
}

// staticChunk is how many entries are stored in two round trips.
const staticChunk = 500

// putSome stores entries of beat_schedule: each by its own script, all scripts in one request. What somebody changes meanwhile is stored by itself.
// One of the known ones that is there as it is to be is left alone. errs are those of single entries.
func (s *Store) putSome(ctx context.Context, entries []*scheduler.Entry, known map[string]bool, by *lock) (errs []error, err error) {
	errs = make([]error, len(entries))
	members := make([]member, len(entries))
	for i, e := range entries {
		members[i] = member{key: s.keys.entry(e.Name), name: e.Name}
		errs[i] = check(e)
	}
	olds, unread, err := s.fetch(ctx, members)
	if err != nil {
		return nil, err
	}
	there, err := s.asWritten(ctx, entries, olds, known)
	if err != nil {
		return nil, err
	}
	replies := make([]*redis.Cmd, len(entries))
	_, err = s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, e := range entries {
			if errs[i] != nil || unread[i] != nil || there[i] {
				continue
			}
			r, write, err := s.replace(e, olds[i], true)
			if err == nil {
				var keys []string
				var args []any
				if keys, args, err = s.putArguments(write, olds[i], r, by); err == nil {
					replies[i] = putScript.EvalSha(ctx, p, keys, args...)
				}
			}
			errs[i] = err
		}
		return nil
	})
	if err := serverError(err); err != nil {
		return nil, err
	}
	for i, e := range entries {
		if errs[i] != nil || there[i] {
			continue
		}
		reply := 0
		if replies[i] != nil {
			reply, _ = replies[i].Int() // an error is found again below
		}
		if reply == 0 {
			if errs[i] = s.put(ctx, e, by); redisconn.Classify(errs[i]) == redisconn.Unavailable {
				return nil, errs[i]
			}
		}
		if reply < 0 || errors.Is(errs[i], scheduler.ErrNotLeading) {
			return nil, scheduler.ErrNotLeading
		}
	}
	return errs, nil
}

// asWritten tells which entries Redis has as storing them would leave them.
func (s *Store) asWritten(ctx context.Context, entries []*scheduler.Entry, olds []raw, known map[string]bool) ([]bool, error) {
	there := make([]bool, len(entries))
	scores := make([][2]*redis.FloatCmd, len(entries))
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, e := range entries {
			if r, err := s.codec.write(e, raw{meta: olds[i].meta}); err == nil && olds[i].meta != "" && r == olds[i] && known[e.Name] {
				key := s.keys.entry(e.Name)
				scores[i] = [2]*redis.FloatCmd{p.ZScore(ctx, s.keys.schedule, key), p.ZScore(ctx, s.keys.due, key)}
			}
		}
		return nil
	})
	if err := serverError(err); err != nil {
		return nil, err
	}
	for i, e := range entries {
		if scores[i][0] == nil {
			continue
		}
		theirs, theirErr := scores[i][0].Result()
		ours, ourErr := scores[i][1].Result()
		state, err := readMeta(olds[i].meta)
		if err != nil || theirErr != nil {
			continue
		}
		if due := score(e.Due(state)); s.codec.alone(olds[i]) {
			there[i] = theirs == -1 && ourErr == nil && ours == due
		} else {
			there[i] = theirs == due && errors.Is(ourErr, redis.Nil)
		}
	}
	return there, nil
}

// staticInterval is how often a beat without a lock looks whether Redis has lost the entries of beat_schedule. With a lock that is lost
// too, and they are stored by whoever takes it.
const staticInterval = 5 * time.Second

// restoreStatic stores the entries of beat_schedule again if Redis has lost them.
func (l *lease) restoreStatic(ctx context.Context, now time.Time) error {
	if l.token != "" || len(l.store.config.Static) == 0 || now.Sub(l.staticLooked).Abs() < staticInterval {
		return nil
	}
	n, err := l.store.client.SCard(ctx, l.store.keys.statics).Result()
	if err == nil && n == 0 {
		err = l.store.putStatic(ctx, &l.lock)
	}
	if err == nil {
		l.staticLooked = now
	}
	return err
}

func set(names []string) map[string]bool {
	all := make(map[string]bool, len(names))
	for _, name := range names {
		all[name] = true
	}
	return all
}
