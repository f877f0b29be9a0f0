package worker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gelery/gelery/task"
)

// gauge counts how many run at once, and how many did at most.
type gauge struct{ now, most, all atomic.Int64 }

func (g *gauge) in() {
	n := g.now.Add(1)
	for m := g.most.Load(); n > m && !g.most.CompareAndSwap(m, n); m = g.most.Load() {
	}
}

func (g *gauge) out() { g.now.Add(-1); g.all.Add(1) }

// newGaugeSite has a task "second" that takes a second and is counted.
func newGaugeSite(t *testing.T) (*site, *gauge) {
	s, g := newSite(t), &gauge{}
	s.mux.Func("second", func(context.Context) error {
		g.in()
		<-time.After(time.Second)
		g.out()
		return nil
	})
	return s, g
}

func (s *site) sendMany(n int, name string, args ...any) (results []*task.Result[any]) {
	s.Helper()
	for range n {
		results = append(results, s.send(name, args...))
	}
	return results
}

// after lets the bubble's time pass and what is to happen then happen.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// TestGrowAndShrink changes the slots under load: as many run at once as there are slots, and the window follows.
func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, g := newGaugeSite(t)
		s.start(Config{Concurrency: 2, PrefetchMultiplier: 2})
		w := s.worker
		s.sendMany(100, "second")
		after(time.Millisecond)
		expect := func(slots int64) {
			t.Helper()
			st := w.Stats()
			if g.now.Load() != slots || st.Concurrency != int(slots) || st.Running != int(slots) || st.Prefetch != 2*int(slots) {
				t.Errorf("%d run, stats are %+v; expected %d slots", g.now.Load(), st, slots)
			}
			if d := s.depth(); d.Unacked != 2*slots {
				t.Errorf("%d are held, expected %d", d.Unacked, 2*slots)
			}
		}
		expect(2)
		if err := w.Grow(3); err != nil {
			t.Error(err)
		}
		after(0)
		expect(5)
		if err := w.Shrink(4); err != nil {
			t.Error(err)
		}
		after(0)
		if g.now.Load() != 5 {
			t.Errorf("%d run; what runs must go on", g.now.Load())
		}
		after(4 * time.Second) // five ran, and what was held beyond the window
		expect(1)
		if err := w.Grow(1); err != nil {
			t.Error(err)
		}
		after(2 * time.Second)
		expect(2)
	})
}

// TestGrowTakesBack grows while slots are busy that are to leave: they stay.
func TestGrowTakesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, g := newGaugeSite(t)
		s.start(Config{Concurrency: 4})
		s.sendMany(20, "second")
		after(time.Millisecond)
		for _, err := range []error{s.worker.Shrink(3), s.worker.Grow(2)} {
			if err != nil {
				t.Error(err)
			}
		}
		after(time.Second)
		if g.now.Load() != 3 || g.most.Load() != 4 {
			t.Errorf("%d run and %d did at most; expected 3 and 4", g.now.Load(), g.most.Load())
		}
	})
}

func TestGrowRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	fixed, err := New(s.client, s.mux, Config{Concurrency: 2})
	if err != nil {
		t.Fatal(err)
	}
	scaled, err := New(s.client, s.mux, Config{Autoscale: Autoscale{Max: 5}})
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"none left": fixed.Shrink(2), "too many": fixed.Grow(maxConcurrency), "grow by 0": fixed.Grow(0), "shrink by -1": fixed.Shrink(-1),
		"grow a scaled one": scaled.Grow(1), "shrink a scaled one": scaled.Shrink(1), "scale a fixed one": fixed.SetAutoscale(2, 1),
		"max below min": scaled.SetAutoscale(2, 3), "min of 0": scaled.SetAutoscale(2, 0),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if st := fixed.Stats(); st.Concurrency != 2 || st.Prefetch != 8 || st.Autoscale != nil {
		t.Errorf("after refusals %+v", st)
	}
}

// TestGrowWhileStopping changes the slots of a worker that stops, over and over: it must neither hang nor panic.
func TestGrowWhileStopping(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{Concurrency: 2})
	over := make(chan struct{})
	var changing sync.WaitGroup
	for range 2 {
		changing.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					_ = s.worker.Grow(5)
					_ = s.worker.Shrink(5)
				}
			}
		})
	}
	for range 50 {
		if v, err := s.send("tasks.add", 1, 2).Get(s.context()); err != nil || v != int64(3) {
			t.Fatal(v, err)
		}
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	close(over)
	changing.Wait()
}

// TestPrefetch: how much is held goes by the multiplier.
func TestPrefetch(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		config Config
		held   int64
	}{
		"default":        {Config{Concurrency: 2}, 8},
		"one":            {Config{Concurrency: 2, PrefetchMultiplier: 1}, 2},
		"disabled":       {Config{Concurrency: 3, DisablePrefetch: true, PrefetchMultiplier: 4}, 3},
		"autoscale":      {Config{Autoscale: Autoscale{Min: 2, Max: 5}, PrefetchMultiplier: 2}, 10},
		"unlimited":      {Config{Concurrency: 2, PrefetchMultiplier: UnlimitedPrefetch}, 20},
		"unlimited, off": {Config{Concurrency: 2, PrefetchMultiplier: UnlimitedPrefetch, DisablePrefetch: true}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, _ := newGaugeSite(t)
				// Before the start: what comes one by one is not fetched for the last place, which is not worth the way.
				s.sendMany(20, "second")
				s.start(tt.config)
				after(time.Millisecond)
				if d := s.depth(); d.Unacked != tt.held {
					t.Errorf("%d are held, expected %d", d.Unacked, tt.held)
				}
			})
		})
	}
}

// TestStats counts what was begun, by task.
func TestStats(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.mux.Func("fails", func() error { return fmt.Errorf("no") })
	s.mux.Func("unused", func() error { return nil })
	s.start(Config{Concurrency: 3, TimeLimit: time.Minute})
	for range 3 {
		if _, err := s.send("tasks.add", 1, 2).Get(s.context()); err != nil {
			t.Fatal(err)
		}
	}
	s.failure(s.send("fails"))
	s.failure(s.send("nobody.knows"))
	st := s.worker.Stats()
	if fmt.Sprint(st.Total) != "map[fails:1 tasks.add:3]" || st.Succeeded != 3 || st.Failed != 1 || st.Quarantined != 1 ||
		st.Concurrency != 3 || st.TimeLimit != time.Minute || st.Abandoned != 0 {
		t.Errorf("stats are %+v", st)
	}
	s.settled()
}
