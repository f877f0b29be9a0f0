//go:build unix

package sharedlimit

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/internal/testservice"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// each runs a test on a real Redis and on the one of `gelery dev`.
func each(t *testing.T, f func(t *testing.T, open func(worker string) *Limits)) {
	t.Parallel()
	for name, url := range map[string]func(testing.TB) string{"redis": testservice.Redis, "miniredis": testservice.Miniredis} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			place := url(t)
			f(t, func(worker string) *Limits { return open(t, place, worker) })
		})
	}
}

func open(t *testing.T, url, worker string) *Limits {
	t.Helper()
	c, err := redisconn.Parse(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := New(c, "pre:", worker, slog.New(slog.NewTextHandler(t.Output(), nil)))
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *Limits) mustReserve(t *testing.T, name string, interval, horizon time.Duration, n int) Turns {
	t.Helper()
	got, err := l.Reserve(t.Context(), name, interval, horizon, n)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (l *Limits) mustHold(t *testing.T, name string, limit, has, want int) Runs {
	t.Helper()
	got, err := l.Hold(t.Context(), name, limit, has, want)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestReserve(t *testing.T) {
	each(t, func(t *testing.T, open func(string) *Limits) {
		a, b := open("a"), open("b")
		const interval, horizon = time.Minute, 10 * time.Minute
		got := a.mustReserve(t, "r", interval, horizon, 3)
		if got.N != 3 || got.First != 0 || got.Again != 0 || got.Workers != 1 {
			t.Errorf("first: %+v", got)
		}
		got = b.mustReserve(t, "r", interval, horizon, 100)
		if d := 3*time.Minute - got.First; got.N != 8 || d < 0 || d > 30*time.Second || got.Workers != 2 {
			t.Errorf("the other: %+v; expected turns 3 to 10", got)
		}
		if d := time.Minute - got.Again; d < 0 || d > 30*time.Second {
			t.Errorf("again after %v", got.Again)
		}
		if got = a.mustReserve(t, "r", interval, horizon, 1); got.N != 0 {
			t.Errorf("beyond the horizon: %+v", got)
		}
		if got = a.mustReserve(t, "other", interval, horizon, 1); got.N != 1 || got.First != 0 || got.Workers != 1 {
			t.Errorf("of another limit: %+v", got)
		}
		// A higher rate, or a clock that has gone back, does not wait for turns of the old one.
		if got = a.mustReserve(t, "r", time.Millisecond, time.Second, 5); got.N != 5 || got.First != 0 {
			t.Errorf("at another rate: %+v", got)
		}
		// One a century, and a million a second.
		if got = a.mustReserve(t, "rare", 100*365*24*time.Hour, time.Second, 5); got.N != 1 || got.Again < 1000*time.Hour {
			t.Errorf("rare: %+v", got)
		}
		if got = a.mustReserve(t, "often", time.Microsecond, time.Second, 10_000); got.N != 10_000 {
			t.Errorf("often: %+v", got)
		}
		if got = a.mustReserve(t, "most", time.Nanosecond, time.Second, 10_000); got.N != 10_000 {
			t.Errorf("most: %+v", got)
		}
	})
}

// TestNothingIsSavedUp: turns of the past are gone.
func TestNothingIsSavedUp(t *testing.T) {
	each(t, func(t *testing.T, open func(string) *Limits) {
		a := open("a")
		const interval, horizon = 20 * time.Millisecond, 40 * time.Millisecond
		a.mustReserve(t, "r", interval, horizon, 10)
		<-time.After(10 * interval)
		if got := a.mustReserve(t, "r", interval, horizon, 10); got.N != 3 || got.First != 0 {
			t.Errorf("after a break: %+v; expected now and two more within the horizon", got)
		}
	})
}

// TestTurnsLieApart: a third of a second cannot be written down, and must not add up to an error.
func TestTurnsLieApart(t *testing.T) {
	each(t, func(t *testing.T, open func(string) *Limits) {
		a := open("a")
		begin := time.Now()
		const n, interval = 300, time.Second / 3
		var last time.Time
		for range n {
			got := a.mustReserve(t, "r", interval, time.Hour, 1)
			last = time.Now().Add(got.First)
		}
		if off := last.Sub(begin) - (n-1)*interval; off < -time.Millisecond || off > time.Second {
			t.Errorf("the last of %d turns is off by %v", n, off)
		}
	})
}

func TestHold(t *testing.T) {
	each(t, func(t *testing.T, open func(string) *Limits) {
		a, b, c := open("a"), open("b"), open("c")
		steps := []struct {
			who       *Limits
			has, want int
			expected  Runs
		}{
			{a, 0, 3, Runs{3, 0, 1}},
			{a, 3, 9, Runs{5, 0, 1}}, // of five
			{b, 0, 2, Runs{0, 0, 2}}, // none left: it starves
			{a, 5, 5, Runs{5, 1, 2}},
			{a, 4, 9, Runs{4, 1, 2}}, // one is kept for who has none
			{c, 0, 1, Runs{1, 1, 3}}, // who was faster than b
			{b, 0, 2, Runs{0, 0, 3}},
			{a, 3, 3, Runs{3, 1, 3}},
			{b, 0, 2, Runs{1, 0, 3}},
			{a, 3, 3, Runs{3, 0, 3}},
			{c, 0, 0, Runs{0, 0, 3}}, // gone
			{b, 1, 2, Runs{2, 0, 2}},
			{a, 6, 6, Runs{6, 0, 2}}, // what runs runs, also beyond the limit
			{b, 2, 9, Runs{2, 0, 2}},
			{a, 0, 0, Runs{0, 0, 2}},
			{b, 2, 9, Runs{5, 0, 1}},
			{b, 5, 5, Runs{5, 0, 1}}, // again, as after a lost reply
		}
		for i, s := range steps {
			if got := s.who.mustHold(t, "r", 5, s.has, s.want); got != s.expected {
				t.Errorf("step %d: %+v; expected %+v", i, got, s.expected)
			}
		}
	})
}

// TestLeases: what nobody renews is free again, and a starving worker that is gone holds nobody up.
func TestLeases(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	a, b, c := open(t, url, "a"), open(t, url, "b"), open(t, url, "c")
	a.mustHold(t, "r", 1, 0, 1)
	dead := time.Now()
	b.mustHold(t, "r", 1, 0, 1) // which is gone too
	for {
		got := c.mustHold(t, "r", 1, 0, 1)
		if got.N == 1 {
			break
		}
		if time.Since(dead) > 15*time.Second {
			t.Fatal("a dead worker's run is held for ever")
		}
		<-time.After(100 * time.Millisecond)
	}
	if d := time.Since(dead); d < Lease-time.Second || d > Lease+time.Second {
		t.Errorf("a dead worker's run was free after %v", d)
	}
}

// TestOddKeys: whatever is in Redis, the script does not break.
func TestOddKeys(t *testing.T) {
	each(t, func(t *testing.T, open func(string) *Limits) {
		a := open("a")
		a.client.Set(t.Context(), "pre:_gelery.limit.r.rate", "garbage", 0)
		a.client.HSet(t.Context(), "pre:_gelery.limit.r.runs", "x", "garbage", "y", "1 1")
		if got := a.mustReserve(t, "r", time.Second, time.Second, 1); got.N != 1 {
			t.Errorf("%+v", got)
		}
		if got := a.mustHold(t, "r", 1, 0, 1); got != (Runs{1, 0, 1}) {
			t.Errorf("%+v", got)
		}
	})
}

func TestDoWaits(t *testing.T) {
	t.Parallel()
	server := testservice.StartRedis(t)
	a := open(t, server.URL, "a")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	server.Kill()
	back := time.AfterFunc(300*time.Millisecond, server.Restart)
	defer back.Stop()
	if !a.Do(ctx, "reserve", func(ctx context.Context) error {
		_, err := a.Reserve(ctx, "r", time.Second, time.Second, 1)
		return err
	}) {
		t.Error("it did not wait for Redis")
	}
	a.client.LPush(t.Context(), "pre:_gelery.limit.r.runs", "a list")
	brief, end := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer end()
	if a.Do(brief, "hold", func(ctx context.Context) error { _, err := a.Hold(ctx, "r", 1, 0, 1); return err }) {
		t.Error("a list is a limit")
	}
}
