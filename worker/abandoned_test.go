package worker

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gelery/gelery/task"
)

// newStubbornSite has a task "stubborn" that ignores its context and ends with goOn, limited to a second.
func newStubbornSite(t *testing.T) (s *site, g *gauge, goOn chan struct{}) {
	s, g = newGaugeSite(t)
	goOn = make(chan struct{})
	s.mux.Func("stubborn", func(context.Context) error { <-goOn; return nil }, task.TimeLimit(time.Second))
	return s, g, goOn
}

// ended waits for Run to return by itself.
func (s *site) ended() error {
	s.Helper()
	select {
	case err := <-s.done:
		s.done <- err
		return err
	case <-time.After(time.Minute):
		s.Error("the worker did not stop by itself")
		return nil
	}
}

// TestAbandonedDrain: more abandoned runs than allowed end the worker, which waits for what runs well but not for them.
func TestAbandonedDrain(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name                string
		slots, most, abuses int
		ends                bool
	}{
		{"default, half of the slots", 4, 0, 2, false},
		{"default, one more", 4, 0, 3, true},
		{"default, one of two", 2, 0, 1, false},
		{"default, the only slot", 1, 0, 1, true},
		{"one is allowed", 4, 1, 2, true},
		{"more than slots are allowed", 3, 9, 3, true},
		{"no bound", 2, -1, 2, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, g, goOn := newStubbornSite(t)
				begun, finish := make(chan struct{}, 9), make(chan struct{})
				s.mux.Func("good", func(context.Context) error { begun <- struct{}{}; <-finish; return nil })
				s.start(Config{Concurrency: tt.slots, MaxAbandoned: tt.most, PrefetchMultiplier: 1})
				abuses := s.sendMany(tt.abuses, "stubborn")
				var good []*task.Result[any]
				if free := tt.slots - tt.abuses; free > 0 {
					good = s.sendMany(free, "good")
					<-begun
				}
				s.sendMany(5, "second") // for others
				after(time.Second)
				if n := s.worker.Stats().Abandoned; n != 0 {
					t.Errorf("%d are abandoned already", n)
				}
				after(obedience)
				if n := s.worker.Stats().Abandoned; n != tt.abuses {
					t.Errorf("%d are abandoned, expected %d", n, tt.abuses)
				}
				close(finish)
				if !tt.ends {
					after(time.Minute)
					select {
					case err := <-s.done:
						t.Fatalf("the worker ended: %v", err)
					default:
					}
				} else if err := s.ended(); !errors.Is(err, ErrAbandoned) {
					t.Errorf("Run returned %v", err)
				} else if d := s.depth(); d.Messages != 5 || d.Unacked != 0 || g.all.Load() != 0 {
					t.Errorf("after the stop %+v, %d ran; expected 5 back", d, g.all.Load())
				}
				for _, r := range good {
					if _, err := r.Get(s.context()); err != nil {
						t.Errorf("what ran well: %v", err)
					}
				}
				for _, r := range abuses {
					if e := s.failure(r); !errors.Is(e, task.ErrTimeLimit) {
						t.Errorf("the abandoned: %v", e)
					}
				}
				close(goOn)
			})
		})
	}
}

// TestAbandonedWithAutoscale: the slots that may still come count.
func TestAbandonedWithAutoscale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _, goOn := newStubbornSite(t)
		s.start(Config{Autoscale: Autoscale{Min: 1, Max: 10}})
		s.sendMany(1, "stubborn")
		after(10 * time.Second)
		if st := s.worker.Stats(); st.Abandoned != 1 {
			t.Errorf("stats are %+v", st)
		}
		if _, err := s.send("tasks.add", 1, 2).Get(s.context()); err != nil {
			t.Errorf("one of ten possible slots is lost, and the worker has none: %v", err)
		}
		close(goOn)
		if err := s.end(); err != nil {
			t.Error(err)
		}
	})
}

// TestObedientAreNotAbandoned: what ends once its context is done does not count, however many there are.
func TestObedientAreNotAbandoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.mux.Func("slow to obey", func(ctx context.Context) error {
			<-ctx.Done()
			<-time.After(obedience / 2)
			return nil
		}, task.TimeLimit(time.Second))
		s.start(Config{Concurrency: 2})
		for _, r := range s.sendMany(6, "slow to obey") {
			if e := s.failure(r); !errors.Is(e, task.ErrTimeLimit) {
				t.Error(e)
			}
		}
		after(time.Minute)
		if st := s.worker.Stats(); st.Abandoned != 0 || st.Running != 0 {
			t.Errorf("stats are %+v", st)
		}
		if err := s.end(); err != nil {
			t.Errorf("the worker stopped: %v", err)
		}
	})
}

// TestAbandonedComesBack: an abandoned slot works again once its code has ended.
func TestAbandonedComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, g, goOn := newStubbornSite(t)
		s.start(Config{Concurrency: 2, PrefetchMultiplier: 1})
		s.send("stubborn")
		s.sendMany(20, "second")
		after(5*time.Second + time.Millisecond)
		if d := s.depth(); g.now.Load() != 1 || d.Unacked != 1 || s.worker.Stats().Running != 2 {
			t.Errorf("%d run, %+v, stats %+v; expected one, and nothing held that cannot run", g.now.Load(), d, s.worker.Stats())
		}
		close(goOn)
		after(0)
		if st := s.worker.Stats(); g.now.Load() != 2 || st.Abandoned != 0 {
			t.Errorf("%d run, stats are %+v", g.now.Load(), st)
		}
	})
}

// TestStopsLeaveAbandonedBehind: neither stop waits for a run that is given up, and its delivery is settled.
func TestStopsLeaveAbandonedBehind(t *testing.T) {
	t.Parallel()
	for name, cold := range map[string]bool{"warm": false, "cold": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, _, goOn := newStubbornSite(t)
				defer close(goOn)
				s.start(Config{Concurrency: 2, MaxAbandoned: -1})
				for _, r := range s.sendMany(2, "stubborn") {
					s.failure(r)
				}
				begun, want := time.Now(), error(nil)
				if cold {
					want = ErrTerminated
					s.worker.Terminate()
				}
				if err := s.end(); !errors.Is(err, want) {
					t.Errorf("the stop returned %v", err)
				}
				if took := time.Since(begun); took > 0 {
					t.Errorf("the stop took %v", took)
				}
				if d := s.depth(); d.Messages+d.Unacked != 0 {
					t.Errorf("after the stop %+v", d)
				}
			})
		})
	}
}

// TestGivenUpWhileStopping: a run that meets its limit during a warm stop ends it.
func TestGivenUpWhileStopping(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _, goOn := newStubbornSite(t)
		defer close(goOn)
		s.start(Config{Concurrency: 1})
		r := s.send("stubborn")
		after(time.Second / 2)
		begun := time.Now()
		if err := s.end(); err != nil {
			t.Error(err)
		}
		if took := fmt.Sprint(time.Since(begun)); took != "500ms" {
			t.Errorf("the stop took %v", took)
		}
		if e := s.failure(r); !errors.Is(e, task.ErrTimeLimit) {
			t.Error(e)
		}
		if d := s.depth(); d.Messages+d.Unacked != 0 {
			t.Errorf("after the stop %+v", d)
		}
	})
}
