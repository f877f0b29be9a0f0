package worker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// in runs a test of a worker on a clock of its own.
func in(t *testing.T, f func(t *testing.T, s *site)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { f(t, newSite(t)) })
}

// runs counts what a task does.
type runs struct {
	mu sync.Mutex
	record
	now int
}

// record is when the runs of a task began, and how many went on at once.
type record struct {
	began []time.Duration // since the first
	args  []int
	first time.Time
	top   int
}

// seen is a copy of the record.
func (r *runs) seen() record {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.record
	c.began, c.args = slices.Clone(c.began), slices.Clone(c.args)
	return c
}

// task makes a task that takes so long.
func (r *runs) task(s *site, name string, takes time.Duration, opts ...task.DefineOption) {
	s.mux.Func(name, func(ctx context.Context, n int) error {
		r.mu.Lock()
		if r.first.IsZero() {
			r.first = time.Now()
		}
		r.began, r.args = append(r.began, time.Since(r.first)), append(r.args, n)
		r.now++
		r.top = max(r.top, r.now)
		r.mu.Unlock()
		select {
		case <-time.After(takes):
		case <-ctx.Done():
		}
		r.mu.Lock()
		r.now--
		r.mu.Unlock()
		return nil
	}, opts...)
}

func (r *runs) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.began)
}

// let lets time pass.
func let(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestRateLimit(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		var limited, free runs
		limited.task(s, "limited", 0, task.RateLimit("6/m"))
		free.task(s, "free", 0)
		for i := range 7 {
			s.send("limited", i)
		}
		s.send("free", 0)
		s.start(Config{Concurrency: 1, PrefetchMultiplier: 1})
		let(time.Millisecond)
		if limited.count() != 1 || free.count() != 1 {
			t.Errorf("at once %d limited and %d others ran; expected one each", limited.count(), free.count())
		}
		let(61 * time.Second)
		for i, at := range limited.seen().began {
			if want := time.Duration(i) * 10 * time.Second; at != want || limited.seen().args[i] != i {
				t.Errorf("run %d is of %d after %v; expected %v", i, limited.seen().args[i], at, want)
			}
		}
		if limited.count() != 7 {
			t.Errorf("%d ran in a minute", limited.count())
		}
		let(time.Minute) // which saves up nothing
		s.send("limited", 7)
		s.send("limited", 8)
		let(time.Second)
		if limited.count() != 8 {
			t.Errorf("%d ran after a break; expected one more", limited.count()-7)
		}
		s.checkRooms()
	})
}

// checkRooms stops the worker and looks at what it counts.
func (s *site) checkRooms() {
	s.Helper()
	waiting := int64(len(s.worker.Scheduled()))
	if err := s.end(); err != nil {
		s.Error(err)
	}
	if d := s.depth(); d.Messages != waiting || d.Unacked != 0 {
		s.Errorf("%d went back and %d are unacked; expected %d to", d.Messages, d.Unacked, waiting)
	}
	outside := s.worker.parking.outside
	for _, r := range s.worker.rooms.rooms {
		outside += len(r.jobs)
		for _, l := range r.limits {
			if n := l.held().waiting; n != len(r.jobs) && len(l.held().rooms) == 1 {
				s.Errorf("a limit counts %d waiting, %d are", n, len(r.jobs))
			}
		}
	}
	if s.worker.window.held != 0 || outside != 0 {
		s.Errorf("%d count in the window, %d are outside; expected that all were given back", s.worker.window.held, outside)
	}
}

// TestManyWait has more waiting than the window, the rooms and the parking hold together.
func TestManyWait(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		var limited, free runs
		limited.task(s, "limited", 0, task.RateLimit("100/s"))
		free.task(s, "free", 0)
		const n = 5000
		for i := range n {
			s.send("limited", i)
		}
		s.start(Config{Concurrency: 2, PrefetchMultiplier: 2})
		let(time.Second)
		s.send("free", 0)
		let(time.Millisecond)
		if free.count() != 1 {
			t.Error("a task without a limit waits for those that have one")
		}
		s.worker.rooms.mu.Lock()
		for _, r := range s.worker.rooms.rooms {
			if len(r.jobs) > roomSize {
				t.Errorf("%d wait in the room", len(r.jobs))
			}
		}
		s.worker.rooms.mu.Unlock()
		let(48*time.Second - time.Millisecond)
		if got := limited.count(); got < 4895 || got > 4901 {
			t.Errorf("%d ran in 49 s", got)
		}
		if !slices.IsSorted(limited.seen().args) {
			t.Error("they did not run in their order")
		}
		let(2 * time.Second)
		if got := limited.count(); got != n {
			t.Errorf("%d ran of %d", got, n)
		}
		s.checkRooms()
	})
}

// TestSetRateLimit changes it while tasks wait.
func TestSetRateLimit(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		var r runs
		r.task(s, "t", 0)
		s.start(Config{Concurrency: 1})
		if err := s.worker.SetRateLimit("t", "1/m"); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			s.send("t", i)
		}
		let(time.Second)
		if r.count() != 1 {
			t.Fatalf("%d ran at 1/m", r.count())
		}
		if all := s.worker.Scheduled(); len(all) != 4 || all[0].ETA.Sub(r.seen().first) != time.Minute || all[0].Request.Task != "t" || all[0].Queue != "celery" {
			t.Errorf("%d are scheduled, the first %+v", len(all), all[0])
		}
		if err := s.worker.SetRateLimit("t", "1/s"); err != nil {
			t.Fatal(err)
		}
		let(time.Millisecond)
		if r.count() != 2 {
			t.Fatalf("%d ran a second later at 1/s", r.count())
		}
		if err := s.worker.SetRateLimit("t", ""); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			s.send("t", 5+i)
		}
		let(time.Millisecond)
		if got := r.count(); got != 15 || !slices.IsSorted(r.seen().args) {
			t.Errorf("%d ran without a limit: %v", got, r.seen().args)
		}
		if err := s.worker.SetRateLimit("nobody", "1/s"); !errors.Is(err, task.ErrNotRegistered) {
			t.Error(err)
		}
		if err := s.worker.SetRateLimit("t", "1/d"); err == nil || !strings.Contains(err.Error(), "10/m") {
			t.Error(err)
		}
		s.checkRooms()
	})
}

func TestRateLimitSources(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		var none, unset, own runs
		none.task(s, "none", 0, task.RateLimit(""))
		unset.task(s, "unset", 0)
		own.task(s, "own", 0, task.RateLimit("2/m"))
		s.start(Config{Concurrency: 1, DefaultRateLimit: "4/m"})
		for i := range 10 {
			for _, name := range []string{"none", "unset", "own"} {
				s.send(name, i)
			}
		}
		let(61 * time.Second)
		if none.count() != 10 || unset.count() != 5 || own.count() != 3 {
			t.Errorf("none %d, unset %d, own %d", none.count(), unset.count(), own.count())
		}
		s.checkRooms()
	})
}

func TestDisableRateLimits(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		var r runs
		r.task(s, "t", 0, task.RateLimit("2/m"))
		s.start(Config{Concurrency: 1, DefaultRateLimit: "4/m", DisableRateLimits: true})
		if err := s.worker.SetRateLimit("t", "1/h"); err != nil {
			t.Error(err)
		}
		for i := range 10 {
			s.send("t", i)
		}
		let(time.Millisecond)
		if r.count() != 10 {
			t.Errorf("%d ran", r.count())
		}
		s.checkRooms()
	})
}

func TestBadRateLimit(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, err := New(s.client, s.mux, Config{DefaultRateLimit: "fast"}); err == nil || !strings.Contains(err.Error(), "DefaultRateLimit") {
		t.Error(err)
	}
	s = newSite(t)
	often := "often"
	s.mux.Register(task.Definition{Name: "t", Defaults: task.Defaults{RateLimit: &often}})
	if _, err := New(s.client, s.mux, Config{}); err == nil || !strings.Contains(err.Error(), `"t": RateLimit`) {
		t.Error(err)
	}
}

func TestConcurrency(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		var two, free runs
		two.task(s, "two", time.Second, task.Concurrency(2))
		free.task(s, "free", time.Second)
		for i := range 21 {
			s.send("two", i)
		}
		for i := range 4 {
			s.send("free", i)
		}
		s.start(Config{Concurrency: 6, PrefetchMultiplier: 1})
		let(time.Millisecond)
		if two.count() != 2 || free.count() != 4 {
			t.Errorf("at once %d limited and %d others ran", two.count(), free.count())
		}
		let(11 * time.Second)
		if two.seen().top != 2 || two.count() != 21 {
			t.Errorf("%d at once, %d ran", two.seen().top, two.count())
		}
		for i, n := range two.seen().args {
			if n/2 != i/2 { // two begin at one time
				t.Errorf("they ran in the order %v", two.seen().args)
				break
			}
		}
		s.checkRooms()
	})
}

// TestConcurrencyIsFreed by runs that end in any way.
func TestConcurrencyIsFreed(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		n := 0
		s.mux.Func("rude", func(context.Context) error {
			switch n++; n % 4 {
			case 0:
				return errors.New("no")
			case 1:
				panic("no")
			case 2:
				return task.Ignore
			}
			return nil
		}, task.Concurrency(1))
		s.start(Config{Concurrency: 2})
		for range 20 {
			s.send("rude")
		}
		let(2 * time.Second) // some come back a little later, since it is not known how long a run takes
		if n != 20 {
			t.Errorf("%d ran", n)
		}
		s.checkRooms()
	})
}

// TestRateAndConcurrency: a run waits for its turn and for another's end, whichever is later.
func TestRateAndConcurrency(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		var r runs
		r.task(s, "t", 3*time.Second, task.Concurrency(2), task.RateLimit(1))
		s.start(Config{Concurrency: 5})
		for i := range 6 {
			s.send("t", i)
		}
		let(time.Minute)
		want := []time.Duration{0, time.Second, 3 * time.Second, 4 * time.Second, 6 * time.Second, 7 * time.Second}
		if !slices.Equal(r.seen().began, want) || r.seen().top != 2 {
			t.Errorf("began at %v, %d at once; expected %v", r.seen().began, r.seen().top, want)
		}
		s.checkRooms()
	})
}

// TestExpiresInTheRoom: what expires while it waits does not run, and takes nobody's turn.
func TestExpiresInTheRoom(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		var r runs
		r.task(s, "t", 0, task.RateLimit("1/m"))
		s.start(Config{Concurrency: 1})
		s.send("t", 0)
		expiring, err := s.client.Send(s.context(), "t", []any{1}, nil, task.Expires(30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		s.send("t", 2)
		let(61 * time.Second)
		if !slices.Equal(r.seen().args, []int{0, 2}) {
			t.Errorf("%v ran", r.seen().args)
		}
		if state, err := expiring.State(s.context()); state != protocol.Revoked || err != nil {
			t.Errorf("%s, %v", state, err)
		}
		s.checkRooms()
	})
}

// TestETAAndRate: first the one, then the other.
func TestETAAndRate(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		var r runs
		r.task(s, "t", 0, task.RateLimit("1/s"))
		s.start(Config{Concurrency: 1})
		for i := range 3 {
			if _, err := s.client.Send(s.context(), "t", []any{i}, nil, task.Countdown(10*time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		let(9 * time.Second)
		if r.count() != 0 {
			t.Error("ran early")
		}
		let(4 * time.Second)
		if r.count() != 3 || r.seen().began[2] != 2*time.Second {
			t.Errorf("began at %v", r.seen().began)
		}
		s.checkRooms()
	})
}

// TestStopGivesBackWaiting: those in the room are not run and not lost.
func TestStopGivesBackWaiting(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		var r runs
		r.task(s, "t", 0, task.RateLimit("1/h"))
		for i := range 30 {
			s.send("t", i)
		}
		s.start(Config{Concurrency: 1, PrefetchMultiplier: 1})
		let(time.Second)
		if held, delayed := len(s.worker.Scheduled()), int(s.depth().Delayed); held+delayed != 29 {
			t.Errorf("%d wait here and %d in the broker", held, delayed)
		}
		s.checkRooms()
	})
}

// TestRoomIsTrimmed: when runs turn out to take long, who waits for them is held no longer than they should be, and comes back.
func TestRoomIsTrimmed(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		var r runs
		var takes atomic.Int64
		takes.Store(int64(time.Second))
		s.mux.Func("t", func(ctx context.Context) error {
			r.mu.Lock()
			r.began = append(r.began, 0)
			r.mu.Unlock()
			select {
			case <-time.After(time.Duration(takes.Load())):
			case <-ctx.Done():
			}
			return nil
		}, task.Concurrency(1))
		s.start(Config{Concurrency: 2})
		const n = 9
		for range n {
			s.send("t")
		}
		let(1500 * time.Millisecond)
		takes.Store(int64(2 * time.Hour))
		let(time.Second)
		if r.count() != 3 {
			t.Fatalf("%d ran", r.count())
		}
		held := func() (n int, oldest time.Duration) {
			s.worker.rooms.mu.Lock()
			defer s.worker.rooms.mu.Unlock()
			for _, r := range s.worker.rooms.rooms {
				for _, j := range r.jobs {
					oldest = max(oldest, time.Since(j.entered))
				}
				n += len(r.jobs)
			}
			return n, oldest
		}
		if n, _ := held(); n != 6 {
			t.Errorf("%d wait in the room", n)
		}
		for range 100 {
			let(time.Minute)
			if n, oldest := held(); oldest > roomRenewal+roomPatience {
				t.Errorf("of %d in the room one is there since %v", n, oldest)
			}
		}
		if n, _ := held(); n > 2 {
			t.Errorf("%d wait in the room for runs of two hours", n)
		}
		takes.Store(int64(time.Second))
		let(40 * time.Minute)
		if r.count() != n {
			t.Errorf("%d ran of %d", r.count(), n)
		}
		s.checkRooms()
	})
}

func TestBucket(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	b := &bucket{interval: 100 * time.Millisecond}
	for _, step := range []struct{ at, wait int }{
		{0, 0}, {1, 99}, {99, 1}, {100, 0}, {200, 0}, {230, 70}, {330, 0} /* 30 late */, {390, 10}, {400, 0}, {1000, 0}, {1001, 99}, {1100, 0},
	} {
		wait := b.wait(at(step.at))
		if wait != time.Duration(step.wait)*time.Millisecond {
			t.Errorf("at %d: %v", step.at, wait)
		}
		if wait == 0 {
			b.take(at(step.at))
		}
	}
}

func TestBookings(t *testing.T) {
	t.Parallel()
	var b bookings
	now := time.Now()
	hour := now.Add(time.Hour)
	if at := b.book("a", now.Add(time.Minute), time.Second, now, hour); at != now.Add(time.Minute) {
		t.Error(at.Sub(now))
	}
	if at := b.book("b", now.Add(time.Second), time.Second, now, hour); at != now.Add(61*time.Second) {
		t.Error(at.Sub(now))
	}
	if at := b.book("far", now.Add(2*time.Hour), time.Second, now, hour); at.After(hour) || at.Before(now.Add(time.Hour/2)) || b.kept("far") {
		t.Error(at.Sub(now), "and remembered")
	}
	if !b.kept("a") || b.kept("a") || b.kept("c") {
		t.Error("what was sent away is not known, or twice")
	}
	b.forget(now.Add(time.Hour))
	if b.kept("b") || len(b.known)+len(b.queued) > 0 {
		t.Error("never forgotten")
	}
	for range 2 * maxBookings {
		b.book(protocol.NewID(), now, 0, now, hour)
	}
	if len(b.known) > maxBookings || len(b.queued) > maxBookings {
		t.Error("grows without bound")
	}
}
