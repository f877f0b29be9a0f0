package redbeat

import (
	"context"
	"crypto/sha1" //nolint:gosec // Redis's own digest; nobody gains by two entries that have one
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/scheduler"
)

// lease is the right to send. The entries that are due soon are in near; all others are only in Redis, in the order of their
// scores. RedBeat's scores are whole seconds, and ours must be so too: Python looks no further ahead than to the first score that
// is later than now. So what is due in this second and the next is read ahead, and is sent at its exact moment.
type lease struct {
	lock
	id string // of this lease, also where there is no lock

	mu     sync.Mutex
	near   *scheduler.Table
	seen   map[string]seen // by name: what is in near, and what cannot be read
	looked time.Time       // zero: look at once
	more   bool            // there is more that is due than was looked at
	later  time.Time       // the first score after those that were looked at
	scan   bool            // entries may be in the future of which nobody told us
	again  time.Time       // without a lock: when Pending may say more than it did

	staticLooked time.Time // without a lock: when the entries of beat_schedule were there
}

// seen is what is known of an entry that was read.
type seen struct {
	score   float64
	raw     raw
	wrong   bool      // it cannot be read
	at      time.Time // when it was read
	waiting bool      // in near
}

func newLease(s *Store, token string) *lease {
	l := &lease{lock: lock{store: s, token: token, lost: make(chan struct{}), stop: func() {}}, id: token, near: scheduler.NewTable(), seen: map[string]seen{}}
	if s.config.NoLock {
		l.token = ""
	}
	s.mu.Lock()
	l.scan = !s.led
	s.mu.Unlock()
	return l
}

// Changed is [scheduler.Lease]'s: RedBeat does not tell.
func (*lease) Changed() <-chan struct{} { return nil }

const (
	lookInterval = 250 * time.Millisecond // how often the zsets are looked at within one second
	page         = 1000                   // how many members are looked at in one request
	pausedFor    = time.Minute            // how long it takes to find out that somebody has enabled an entry without telling its score
	wrongFor     = 5 * time.Second        // how often an entry that cannot be read is read again
	ahead        = 2 * time.Second        // what is due later than that is not kept
)

// Due is [scheduler.Lease]'s.
func (l *lease) Due(ctx context.Context, now time.Time, limit int) (due []scheduler.Record, next time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isLost() {
		return nil, time.Time{}, scheduler.ErrNotLeading
	}
	if !l.again.IsZero() && !now.Before(l.again) {
		l.again = time.Time{}
		return nil, time.Time{}, scheduler.ErrChanged
	}
	if err := l.restoreStatic(ctx, now); err != nil {
		return nil, time.Time{}, fmt.Errorf("redbeat: beat_schedule: %w", err)
	}
	if l.more || l.looked.Unix() != now.Unix() || now.Sub(l.looked).Abs() >= lookInterval {
		if err := l.look(ctx, now, limit); err != nil {
			return nil, time.Time{}, fmt.Errorf("redbeat: schedule: %w", err)
		}
	}
	due, next = l.near.Due(now, limit)
	if next.IsZero() || !l.later.IsZero() && l.later.Before(next) {
		next = l.later
	}
	return due, next, nil
}

// Counts are [scheduler.Counter]'s. Which entries are paused is in their definitions, which nobody reads for this.
func (l *lease) Counts(ctx context.Context) (scheduler.Counts, error) {
	n, err := l.store.client.ZCard(ctx, l.store.keys.schedule).Result()
	return scheduler.Counts{Store: "redbeat", Enabled: int(n), Mixed: true}, err
}

// member is an entry in a zset.
type member struct {
	zset, key, name string
	score           float64
}

// look reads the entries whose score has come, or will with the next second.
func (l *lease) look(ctx context.Context, now time.Time, limit int) error {
	l.more = false
	until := now.Unix() + 1
	l.later = time.Time{}
	for _, zset := range []string{l.store.keys.schedule, l.store.keys.due} {
		following, err := l.store.client.ZRangeByScoreWithScores(ctx, zset, &redis.ZRangeBy{Min: "(" + strconv.FormatInt(until, 10), Max: "+inf", Count: 1}).Result()
		if err != nil {
			return err
		}
		if len(following) == 1 {
			// It is read a second before.
			if at := time.Unix(int64(min(following[0].Score, 1<<36))-1, 0); l.later.IsZero() || at.Before(l.later) {
				l.later = at
			}
		}
		found := 0
		for offset := int64(0); ; offset += page {
			got, err := l.store.client.ZRangeByScoreWithScores(ctx, zset, &redis.ZRangeBy{
				Min: "0", Max: strconv.FormatInt(until, 10), Offset: offset, Count: page,
			}).Result()
			if err != nil {
				return err
			}
			n, err := l.load(ctx, now, zset, got)
			if err != nil {
				return err
			}
			if found += n; found >= limit {
				l.more = true
				break
			}
			if len(got) < page {
				break
			}
		}
	}
	l.looked = now
	return nil
}

// load reads the entries of members that are not known, and returns how many of them are due.
func (l *lease) load(ctx context.Context, now time.Time, zset string, all []redis.Z) (due int, err error) {
	var unknown []member
	for _, z := range all {
		key, _ := z.Member.(string)
		name, ok := l.store.keys.name(key)
		m := member{zset: zset, key: key, name: name, score: z.Score}
		if !ok {
			m.name = key
		}
		s, known := l.seen[m.name]
		switch {
		case known && s.score == m.score && s.waiting:
		case known && s.score == m.score && s.wrong && now.Sub(s.at).Abs() < wrongFor:
		case !ok:
			l.reject(m, raw{}, now, errors.New("its key does not begin with the prefix, or is RedBeat's own"))
		default:
			unknown = append(unknown, m)
		}
	}
	raws, errs, err := l.store.fetch(ctx, unknown)
	if err != nil {
		return 0, err
	}
	var away []member
	for i, m := range unknown {
		switch {
		case errs[i] != nil:
			l.reject(m, raw{}, now, errs[i])
		case raws[i].definition == "":
			away = append(away, m)
		case l.seen[m.name].wrong && l.seen[m.name].raw == raws[i]:
			l.seen[m.name] = seen{score: m.score, raw: raws[i], wrong: true, at: now}
		default:
			rec, err := l.store.codec.read(m.name, raws[i])
			if err != nil {
				l.reject(m, raws[i], now, err)
				continue
			}
			if rec.Entry.Paused || zset != l.store.zset(raws[i]) {
				away = append(away, m)
				continue
			}
			at := rec.Entry.Due(rec.State)
			if at.IsZero() || at.After(now.Add(ahead)) {
				at = now // its score is wrong: it is put right with the mark
			}
			l.keep(rec, at, seen{score: m.score, raw: raws[i], at: now})
			if !at.After(now) {
				due++
			}
		}
	}
	return due, l.postpone(ctx, now, away)
}

// keep puts an entry into near, to be due at some time.
func (l *lease) keep(rec scheduler.Record, at time.Time, s seen) {
	s.waiting, s.wrong = true, false
	l.seen[rec.Entry.Name] = s
	l.near.SetDue(rec, at)
}

func (l *lease) forget(name string) {
	delete(l.seen, name)
	l.near.Remove(name)
}

// reject notes that an entry cannot be read, and tells it once.
func (l *lease) reject(m member, r raw, now time.Time, err error) {
	if before, known := l.seen[m.name]; !known || !before.wrong || before.raw != r {
		l.store.log.Error("beat: an entry cannot be read, and is left alone", "entry", m.name, "error", err)
	}
	l.near.Remove(m.name)
	l.seen[m.name] = seen{score: m.score, raw: r, wrong: true, at: now}
}

// postpone moves entries that are not sent to later, lest they are read again and again.
func (l *lease) postpone(ctx context.Context, now time.Time, all []member) error {
	for chunk := range slices.Chunk(all, page) {
		keys := []string{l.store.config.LockKey}
		args := []any{l.token, now.Add(pausedFor).Unix()}
		for _, m := range chunk {
			l.forget(m.name)
			keys, args = append(keys, m.zset, m.key), append(args, m.score)
		}
		if err := leading(postponeScript.Run(ctx, l.store.client, keys, args...).Int()); err != nil {
			return err
		}
	}
	return nil
}

// leading reads the reply of a script that asks whether the lock is ours.
func leading(reply int, err error) error {
	if err == nil && reply < 0 {
		return scheduler.ErrNotLeading
	}
	return err
}

// fetch reads what Redis has of entries. errs are those of single ones.
func (s *Store) fetch(ctx context.Context, all []member) (raws []raw, errs []error, err error) {
	raws, errs = make([]raw, len(all)), make([]error, len(all))
	for start := 0; start < len(all); start += page {
		chunk := all[start:min(start+page, len(all))]
		replies := make([]*redis.SliceCmd, len(chunk))
		_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, m := range chunk {
				replies[i] = p.HMGet(ctx, m.key, definitionField, metaField, extraField)
			}
			return nil
		})
		if err := serverError(err); err != nil {
			return nil, nil, err
		}
		for i, reply := range replies {
			values, err := reply.Result()
			if err != nil {
				errs[start+i] = err
				continue
			}
			r := &raws[start+i]
			r.definition, _ = values[0].(string)
			r.meta, _ = values[1].(string)
			r.extra, _ = values[2].(string)
		}
	}
	return raws, errs, nil
}

// digest is what markScript tells of an entry by.
func (r raw) digest() string {
	sum := sha1.Sum([]byte(r.definition + "\x00" + r.extra)) //nolint:gosec // see the import
	return hex.EncodeToString(sum[:])
}

// zset is where an entry's score is.
func (s *Store) zset(r raw) string {
	if s.codec.alone(r) {
		return s.keys.due
	}
	return s.keys.schedule
}
