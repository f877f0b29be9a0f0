package worker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// await waits for an event of a test.
func await[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(30 * time.Second):
		t.Fatalf("waited 30 s for %s", what)
	}
	return v
}

// A warm stop gives back at once what has not begun: what waits for a slot, and what a limit holds back.
func TestStopGivesBackWhatHasNotBegun(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	began, release := make(chan struct{}, 10), make(chan struct{})
	s.mux.Func("hold", func(context.Context) error { began <- struct{}{}; <-release; return nil })
	exhaust := s.limiting()
	s.start(Config{Concurrency: 1})
	exhaust()
	running := s.send("hold")
	await(t, began, "the first task")
	s.send("hold")
	s.send("hold")
	s.send("limited")
	s.reaches(0, 4)
	s.stop()
	s.reaches(3, 1) // while the first still runs
	close(release)
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if _, err := running.Get(s.context()); err != nil {
		t.Errorf("the running task: %v", err)
	}
	if d := s.depth(); d.Messages != 3 || d.Unacked != 0 {
		t.Errorf("%d wait and %d are unacked; expected 3 and none", d.Messages, d.Unacked)
	}
}

// reaches returns when the queue celery has so many messages waiting and taken.
func (s *site) reaches(waiting, unacked int64) {
	s.Helper()
	deadline := time.After(30 * time.Second)
	for {
		d := s.depth()
		if d.Messages == waiting && d.Unacked == unacked {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			s.Fatalf("after 30 s %d wait and %d are unacked; expected %d and %d", d.Messages, d.Unacked, waiting, unacked)
		}
	}
}

func TestColdStopGivesBack(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		option task.DefineOption
		heeds  bool
	}{
		"late":               {heeds: true},
		"late, deaf":         {},
		"early":              {task.AckEarly(), true},
		"early and does not": {task.AckEarly(), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			began, release := make(chan context.Context, 1), make(chan struct{})
			defer close(release)
			var options []task.DefineOption
			if tt.option != nil {
				options = append(options, tt.option)
			}
			s.mux.Func("hold", func(ctx context.Context) error {
				began <- ctx
				if tt.heeds {
					<-ctx.Done()
					return ctx.Err()
				}
				<-release
				return nil
			}, options...)
			s.start(Config{Concurrency: 1})
			r, err := s.client.Send(s.context(), "hold", nil, nil, task.Retries(2))
			if err != nil {
				t.Fatal(err)
			}
			ctx := await(t, began, "the task")
			s.worker.Terminate()
			if err := s.end(); !errors.Is(err, ErrTerminated) {
				t.Fatal(err)
			}
			if cause := context.Cause(ctx); !errors.Is(cause, ErrTerminated) {
				t.Errorf("the context's cause is %v", cause)
			}
			if d := s.depth(); d.Messages != 1 || d.Unacked != 0 {
				t.Fatalf("%d wait and %d are unacked; expected the message to be back", d.Messages, d.Unacked)
			}
			if state, err := r.State(s.context()); err != nil || state != protocol.Pending {
				t.Errorf("the task is %v, %v", state, err)
			}
			again := newSite(t)
			again.client = s.client
			ran := make(chan *task.Info, 1)
			again.mux.Func("hold", func(ctx context.Context) error {
				info, _ := task.FromContext(ctx)
				ran <- info
				return nil
			})
			again.start(Config{Concurrency: 1})
			if info := await(t, ran, "the second run"); info.ID != r.ID() || info.Retries != 2 {
				t.Errorf("%s ran again with %d retries; expected %s with 2", info.ID, info.Retries, r.ID())
			}
			again.settled()
		})
	}
}

// A soft stop lets tasks end, and ends when they have; a second Terminate cuts it short.
func TestSoftStop(t *testing.T) {
	t.Parallel()
	for name, heedless := range map[string]bool{"all end": false, "cut short": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			began, release := make(chan struct{}), make(chan struct{})
			s.mux.Func("hold", func(ctx context.Context) error {
				close(began)
				select {
				case <-release:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			s.start(Config{Concurrency: 1, SoftStopTimeout: time.Hour})
			r := s.send("hold")
			await(t, began, "the task")
			s.worker.Terminate()
			if heedless {
				s.worker.Terminate()
				if err := s.end(); !errors.Is(err, ErrTerminated) {
					t.Errorf("the worker ended with %v", err)
				}
				if d := s.depth(); d.Messages != 1 {
					t.Errorf("%d messages wait; expected that of the cancelled task", d.Messages)
				}
				return
			}
			close(release)
			if err := s.end(); err != nil {
				t.Errorf("the worker ended with %v", err)
			}
			if _, err := r.Get(s.context()); err != nil {
				t.Errorf("the task: %v", err)
			}
		})
	}
}

// A task that has passed its hard limit and runs on does not hold up a warm stop.
func TestStopDoesNotWaitForWhatIsGivenUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	release := make(chan struct{})
	defer close(release)
	s.mux.Func("deaf", func(context.Context) error { <-release; return nil })
	s.start(Config{Concurrency: 1, TimeLimit: 20 * time.Millisecond})
	if e := s.failure(s.send("deaf")); e.Type != "TimeLimitExceeded" {
		t.Fatal(e)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestStopMethod(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{})
	s.worker.Stop()
	if err := await(t, s.done, "the worker's end"); err != nil {
		t.Error(err)
	}
	s.done <- nil
	w, err := New(s.client, NewMux(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	w.Stop()
	if err := w.Run(t.Context()); err != nil {
		t.Errorf("a worker that was stopped before it began: %v", err)
	}
}
