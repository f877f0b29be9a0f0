package redbeat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/scheduler/storetest"
)

// heard is a log that can be read.
type heard struct {
	mu   sync.Mutex
	text strings.Builder
}

func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(b)
}

func (h *heard) count(text string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Count(h.text.String(), text)
}

func led(t testing.TB, s *Store) scheduler.Lease {
	t.Helper()
	l, err := s.Lead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Release(context.Background()) })
	return l
}

// TestBadEntries: what cannot be read is told once, left as it is, and keeps nothing else back.
func TestBadEntries(t *testing.T) {
	t.Parallel()
	var log heard
	s := opened(t, Config{URL: testservice.Redis(t), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	ctx := t.Context()
	interval := `"schedule": {"__type__": "interval", "every": 1.0, "relative": true}`
	bad := map[string]string{
		"no json": `{`, "list": `[]`, "no task": `{"name": "no task", ` + interval + `}`,
		"unknown":  `{"name": "unknown", "task": "a", "schedule": {"__type__": "lunar", "phase": 3}}`,
		"zero":     `{"name": "zero", "task": "a", "schedule": {"__type__": "interval", "every": 0}}`,
		"fields":   `{"name": "fields", "task": "a", "schedule": {"__type__": "crontab", "minute": "*/0"}}`,
		"other":    `{"name": "another", "task": "a", ` + interval + `}`,
		"options":  `{"name": "options", "task": "a", "options": {"que": 1}, ` + interval + `}`,
		"date":     `{"name": "date", "task": "a", "args": [{"__type__": "datetime", "year": "x"}], ` + interval + `}`,
		"rule":     `{"name": "rule", "task": "a", "schedule": {"__type__": "rrule", "freq": 3}}`,
		"hopeless": `{"name": "hopeless", "task": "a", "schedule": {"__type__": "rrule", "freq": 0, "dtstart": 1700000000, "bymonth": 2, "bymonthday": 30}}`,
	}
	for name, text := range bad {
		s.client.HSet(ctx, "redbeat:"+name, "definition", text)
		s.client.ZAdd(ctx, "redbeat::schedule", z(1, "redbeat:"+name))
	}
	s.client.Set(ctx, "redbeat:string", "x", 0)
	for _, member := range []string{"redbeat:string", "redbeat::lock", "elsewhere", "redbeat:"} {
		s.client.ZAdd(ctx, "redbeat::schedule", z(1, member))
	}
	s.client.ZAdd(ctx, "redbeat::schedule", z(1, "redbeat:gone"))
	s.client.HSet(ctx, "redbeat:never ran", "definition", `{"name": "never ran", "task": "a", "extra": 1, `+interval+`}`)
	s.client.ZAdd(ctx, "redbeat::schedule", z(0, "redbeat:never ran"))
	s.client.HSet(ctx, "redbeat:disabled", "definition", `{"name": "disabled", "task": "a", "enabled": false, `+interval+`}`)
	s.client.ZAdd(ctx, "redbeat::schedule", z(0, "redbeat:disabled"))

	l := led(t, s)
	now := time.Now()
	for i := range 3 {
		due, _, err := l.Due(ctx, now.Add(time.Duration(i)*time.Second), 10)
		if err != nil || len(due) != 1 || due[0].Entry.Name != "never ran" {
			t.Fatalf("due: %v, %v", due, err)
		}
	}
	for name, text := range bad {
		if got := s.client.HGet(ctx, "redbeat:"+name, "definition").Val(); got != text {
			t.Errorf("%s was changed to %s", name, got)
		}
		if score := s.client.ZScore(ctx, "redbeat::schedule", "redbeat:"+name).Val(); score != 1 {
			t.Errorf("%s has the score %v", name, score)
		}
		if n := log.count("cannot be read, and is left alone\" entry=\""+name+"\"") + log.count("cannot be read, and is left alone\" entry="+name+" "); n != 1 {
			t.Errorf("%s is told of %d times", name, n)
		}
	}
	if err := s.client.ZScore(ctx, "redbeat::schedule", "redbeat:gone").Err(); err == nil {
		t.Error("a member without an entry stays")
	}
	if score := s.client.ZScore(ctx, "redbeat::schedule", "redbeat:disabled").Val(); score < float64(now.Unix()) {
		t.Errorf("a disabled entry is looked at again and again: %v", score)
	}
	wrong, right := 0, 0
	for _, err := range s.Entries(ctx) {
		if err != nil {
			wrong++
		} else {
			right++
		}
	}
	if wrong != len(bad)+1 || right != 2 {
		t.Errorf("entries: %d wrong, %d right", wrong, right)
	}
	if err := s.Pause(ctx, "never ran", true); err != nil {
		t.Error(err)
	}
	if text := s.client.HGet(ctx, "redbeat:never ran", "definition").Val(); !strings.Contains(text, `"extra":1`) {
		t.Errorf("what others have added is lost: %s", text)
	}
}

// TestStatic: who begins to lead stores the entries of beat_schedule, and removes those that are no longer in it; others stay.
func TestStatic(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	a, b := storetest.Entry(t, "a", `{task: a, schedule: 60}`), storetest.Entry(t, "b", `{task: b, schedule: 60}`)
	bad := &scheduler.Entry{Name: ":lock", Schedule: a.Schedule, Task: a.Task}
	c := storetest.Entry(t, "c", `{task: c, schedule: 60}`)
	first := opened(t, Config{URL: url, Static: []*scheduler.Entry{bad, a, b, c}, Logger: slog.New(slog.DiscardHandler)})
	lead := func(s *Store) {
		t.Helper()
		l, err := s.Lead(t.Context())
		if err == nil {
			err = l.Release(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	lead(first)
	if err := first.Put(t.Context(), storetest.Entry(t, "mine", `{task: c, schedule: 60}`)); err != nil {
		t.Fatal(err)
	}
	if err := first.Pause(t.Context(), "a", true); err != nil {
		t.Fatal(err)
	}
	faster := storetest.Entry(t, "a", `{task: a, schedule: 30}`)
	second := opened(t, Config{URL: url, Static: []*scheduler.Entry{faster}, Unreadable: []string{"c"}})
	if _, err := second.Entry(t.Context(), "b"); err != nil {
		t.Errorf("b is changed by a standby: %v", err)
	}
	lead(second)
	lead(opened(t, Config{URL: url})) // does not touch them
	r, err := second.Entry(t.Context(), "a")
	if err != nil || r.Source != "beat_schedule" || !r.Entry.Paused || r.Entry.Schedule.Next(time.Unix(0, 0)).Unix() != 30 {
		t.Errorf("a: %+v, %v", r, err)
	}
	if _, err := second.Entry(t.Context(), "b"); !errors.Is(err, scheduler.ErrNoEntry) {
		t.Errorf("b: %v", err)
	}
	if _, err := second.Entry(t.Context(), "c"); err != nil {
		t.Errorf("c, which has a mistake now: %v", err)
	}
	if r, err := second.Entry(t.Context(), "mine"); err != nil || r.Source != "redbeat" {
		t.Errorf("mine: %+v, %v", r, err)
	}
}

// TestManyStatic: of many entries each is stored as it would be alone, and what is there is left as it is.
func TestManyStatic(t *testing.T) {
	t.Parallel()
	ctx, url := t.Context(), testservice.Redis(t)
	var entries []*scheduler.Entry
	for i := range staticChunk + 10 {
		entries = append(entries, storetest.Entry(t, fmt.Sprint("e", i), `{task: a, schedule: 60}`))
	}
	entries[3] = storetest.Entry(t, "e3", `{task: a, schedule: {cron: "@daily"}}`)
	s := opened(t, Config{URL: url, Static: entries})
	l := led(t, s)
	names := func() int { return int(s.client.ZCard(ctx, s.keys.schedule).Val()) }
	if n, listed := names(), s.client.SCard(ctx, s.keys.statics).Val(); n != len(entries) || int(listed) != n {
		t.Fatalf("stored %d of %d entries, %d are listed", n, len(entries), listed)
	}
	meta := s.client.HGet(ctx, s.keys.entry("e1"), metaField).Val()
	if err := l.Release(ctx); err != nil {
		t.Fatal(err)
	}
	// What others have done to them.
	s.client.ZRem(ctx, s.keys.schedule, s.keys.entry("e0"))
	s.client.Del(ctx, s.keys.entry("e2"))
	s.client.ZRem(ctx, s.keys.due, s.keys.entry("e3"))
	s.client.HSet(ctx, s.keys.entry("e4"), definitionField, "{}")
	s.client.ZAdd(ctx, s.keys.schedule, z(1, s.keys.entry("e5")))
	if err := s.Pause(ctx, "e6", true); err != nil {
		t.Fatal(err)
	}
	led(t, s)
	for i, e := range entries[:8] {
		r, err := s.Entry(ctx, e.Name)
		if err != nil || r.Entry.Task.Name() != "a" || r.Entry.Paused != (i == 6) {
			t.Errorf("%s: %+v, %v", e.Name, r, err)
			continue
		}
		zset, want := s.keys.schedule, score(e.Due(r.State))
		if i == 3 {
			zset = s.keys.due
		}
		if got := s.client.ZScore(ctx, zset, s.keys.entry(e.Name)).Val(); got != want {
			t.Errorf("%s: its score is %v, not %v", e.Name, got, want)
		}
	}
	if got := s.client.HGet(ctx, s.keys.entry("e1"), metaField).Val(); got != meta || names() != len(entries) {
		t.Errorf("an entry that was there is otherwise: %s, before %s; there are %d", got, meta, names())
	}
}

// TestStaticAgain: entries of beat_schedule that Redis has lost are back with the next lease, and nobody stores them without one.
func TestStaticAgain(t *testing.T) {
	t.Parallel()
	for name, noLock := range map[string]bool{"lock": false, "no lock": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log heard
			ctx := t.Context()
			s := opened(t, Config{URL: testservice.Redis(t), NoLock: noLock, LockTimeout: time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil)),
				Static: []*scheduler.Entry{storetest.Entry(t, "a", `{task: a, schedule: 60}`)}})
			l := led(t, s)
			s.client.FlushDB(ctx)
			if !noLock {
				select {
				case <-l.Lost():
				case <-time.After(30 * time.Second):
					t.Fatal("the lease is not lost")
				}
				lost := &l.(*lease).lock
				if err := s.putStatic(ctx, lost); !errors.Is(err, scheduler.ErrNotLeading) {
					t.Errorf("stored without the lease: %v", err)
				}
				s.client.SAdd(ctx, "redbeat::statics", "b")
				s.client.HSet(ctx, "redbeat:b", "definition", "{}")
				if err := s.remove(ctx, "b", lost.token); !errors.Is(err, scheduler.ErrNotLeading) || s.client.Exists(ctx, "redbeat:b").Val() != 1 {
					t.Errorf("removed without the lease: %v", err)
				}
			}
			if noLock {
				if _, _, err := l.Due(ctx, time.Now(), 10); err != nil {
					t.Fatal(err)
				}
			} else {
				led(t, s)
			}
			if _, err := s.Entry(ctx, "a"); err != nil {
				t.Error(err)
			}
			if n := log.count("were not in Redis"); n != 2 {
				t.Errorf("told %d times that they were missing", n)
			}
		})
	}
}

// TestFencing: who has lost the lock marks nothing, whatever it believes.
func TestFencing(t *testing.T) {
	t.Parallel()
	s := opened(t, Config{URL: testservice.Redis(t), LockTimeout: time.Minute})
	ctx := t.Context()
	if err := s.Put(ctx, storetest.Entry(t, "e", `{task: a, schedule: 60}`)); err != nil {
		t.Fatal(err)
	}
	l := led(t, s)
	now := time.Now().Add(time.Hour)
	due, _, err := l.Due(ctx, now, 10)
	if err != nil || len(due) != 1 {
		t.Fatalf("due: %v, %v", due, err)
	}
	s.client.Set(ctx, "redbeat::lock", "0123456789abcdef", 0) // Python's
	m := scheduler.Mark{Entry: due[0].Entry, State: scheduler.State{LastRunAt: now, TotalRunCount: 1}, Next: now.Add(time.Minute)}
	_, pending := l.Pending(ctx)
	for what, err := range map[string]error{"mark": l.Mark(ctx, []scheduler.Mark{m}), "pending": pending, "done": l.Done(ctx, []scheduler.Run{{ID: "x"}}), "release": l.Release(ctx)} {
		if !errors.Is(err, scheduler.ErrNotLeading) && !errors.Is(err, scheduler.ErrChanged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if r, err := s.Entry(ctx, "e"); err != nil || r.State.TotalRunCount != 0 {
		t.Errorf("it was marked: %+v, %v", r, err)
	}
	if s.client.Get(ctx, "redbeat::lock").Val() != "0123456789abcdef" {
		t.Error("Python's lock is gone")
	}
}

// TestLockIsLost: a leader that cannot renew its lock knows it within its timeout.
func TestLockIsLost(t *testing.T) {
	t.Parallel()
	for name, disturb := range map[string]func(*testservice.RedisServer, *Store){
		"frozen": func(r *testservice.RedisServer, _ *Store) { r.Freeze() },
		"taken": func(_ *testservice.RedisServer, s *Store) {
			s.client.Set(context.Background(), "redbeat::lock", "other", 0)
		},
		"killed": func(r *testservice.RedisServer, _ *Store) { r.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testservice.StartRedis(t)
			s := opened(t, Config{URL: server.URL, LockTimeout: time.Second})
			l := led(t, s)
			disturb(server, s)
			select {
			case <-l.Lost():
			case <-time.After(30 * time.Second):
				t.Error("the lock is not lost")
			}
			if name == "frozen" {
				server.Thaw() // or the release waits for it
			}
		})
	}
}

// TestNoLock: without a lock two beats mark a moment once, and what one has left behind is found.
func TestNoLock(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	one, two := opened(t, Config{URL: url, NoLock: true}), opened(t, Config{URL: url, NoLock: true})
	ctx := t.Context()
	if err := one.Put(ctx, storetest.Entry(t, "e", `{task: a, schedule: 60}`)); err != nil {
		t.Fatal(err)
	}
	now := time.Now().Add(time.Hour)
	var marks [2]error
	leases := []scheduler.Lease{led(t, one), led(t, two)}
	for _, l := range leases {
		if due, _, err := l.Due(ctx, now, 10); err != nil || len(due) != 1 {
			t.Fatalf("due: %v, %v", due, err)
		}
	}
	for i, l := range leases {
		e := storetest.Entry(t, "e", `{task: a, schedule: 60}`)
		marks[i] = l.Mark(ctx, []scheduler.Mark{{Entry: e, State: scheduler.State{LastRunAt: now, TotalRunCount: 1}, Next: now.Add(time.Minute), Runs: []scheduler.Run{{Entry: "e", ID: "1", Moment: now, Number: 1, Task: e.Task}}}})
	}
	if marks[0] != nil || !errors.Is(marks[1], scheduler.ErrChanged) {
		t.Errorf("marks: %v", marks)
	}
	mine, err := leases[0].Pending(ctx)
	others, err2 := leases[1].Pending(ctx)
	if err != nil || err2 != nil || len(mine) != 1 || len(others) != 0 {
		t.Errorf("pending: %v and %v; %v, %v", mine, others, err, err2)
	}
	if _, _, err := leases[1].Due(ctx, time.Now().Add(youngest+time.Second), 10); !errors.Is(err, scheduler.ErrChanged) {
		t.Errorf("the second one is not told to ask again: %v", err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]Config{
		"redbeat_redis_url":    {},
		"redbeat_lock_timeout": {URL: "redis://localhost", LockTimeout: time.Millisecond},
		"not Redis":            {URL: "amqp://localhost"},
	} {
		if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
