//go:build unix

package faults

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// offend sends a task that does what it should not.
func (s *scene) offend(how string) *task.Result[task.NoResult] {
	s.Helper()
	id := protocol.NewID()
	r, err := misbehave.Send(deadlineOf(s.TB, patient), s.client, misdeed{how}, task.ID(id))
	s.record(err, id)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// TestF09Panic has tasks panic: each is a FAILURE with its stack, and the worker lives. A panic in a goroutine that a task
// has started cannot be caught: it ends the process.
func TestF09Panic(t *testing.T) {
	t.Parallel()
	s := onRedis(t, testservice.Redis(t))
	w := s.worker()
	faults := 0
	for range form(3, 20) {
		for _, how := range []string{"panic", "nil map", "rude error", "wrong index"} {
			s.wantFailure(s.offend(how), how)
			s.sendOne(1)
			faults++
		}
	}
	if !w.alive() {
		t.Fatalf("the worker has ended: %s", w.log)
	}
	s.settled(recovery)
	s.account(outcome{what: "panic in a task, in its error's own method, nil map, wrong index", faults: faults})

	s.offend("foreign panic")
	if err := w.wait(recovery); err == nil {
		t.Error("a worker has survived what cannot be survived")
	}
}

// wantFailure waits for the result of a task, which must be FAILURE with a traceback.
func (s *scene) wantFailure(r *task.Result[task.NoResult], how string) {
	s.Helper()
	_, err := r.Get(deadlineOf(s.TB, comeback))
	if err == nil {
		s.Errorf("%s: no failure", how)
		return
	}
	record, err := r.Meta(deadlineOf(s.TB, comeback))
	if err != nil || record.Status != protocol.Failure || record.Traceback == "" {
		s.Errorf("%s: the result is %+v, %v; expected FAILURE with a traceback", how, record, err)
	}
}

// TestF10Goexit ends the goroutines of tasks: each is a FAILURE, and its slot is free again.
func TestF10Goexit(t *testing.T) {
	t.Parallel()
	s := onRedis(t, testservice.Redis(t))
	w := s.worker()
	faults := form(3, 25) * slots
	var results []*task.Result[task.NoResult]
	for range faults {
		results = append(results, s.offend("goexit"))
	}
	for _, r := range results {
		if _, err := r.Get(deadlineOf(t, comeback)); err == nil {
			t.Error("no failure")
		}
	}
	s.sendMany(10*slots, 1)
	s.settled(recovery)
	stopped(t, w)
	s.account(outcome{what: "runtime.Goexit in a task", faults: faults})
}

// TestF11Exit has a task end its process again and again: after so many deliveries it is set aside, and others are not
// lost.
func TestF11Exit(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, s *scene) {
		most := 3
		if s.rdb != nil {
			most = form(1, 3) // each costs a lease
		}
		told := func(told *setup) { told.MaxDeliveries = most }
		r := s.offend("exit")
		deaths := 0
		for w := s.worker(told); ; w = s.worker(told) {
			s.sendMany(5, 5)
			s.await(2*recovery, "the worker ends, or the task is set aside", func() bool { return !w.alive() || len(s.parked()) > 0 })
			if w.alive() {
				s.settled(2 * recovery)
				stopped(t, w)
				break
			}
			if deaths++; deaths > most+1 {
				t.Fatalf("%d workers have died; expected %d", deaths, most+1)
			}
		}
		if n := s.ledger.Counts(t)[r.ID()]; n != most+1 {
			t.Errorf("the task has run %d times; expected once, and %d times after it had come again", n, most)
		}
		s.account(outcome{what: fmt.Sprintf("os.Exit in a task, again and again; MaxDeliveries %d", most), faults: deaths, extra: deaths * prefetch, parked: 1})
		if s.rdb != nil {
			s.lostWorker(r)
		}
	})
}

// lostWorker: whoever waits for the result of a task that ends its workers is told.
func (s *scene) lostWorker(r *task.Result[task.NoResult]) {
	s.Helper()
	if _, err := r.Get(deadlineOf(s.TB, comeback)); err == nil || !strings.Contains(err.Error(), "WorkerLost") {
		s.Errorf("its result is %v; expected WorkerLostError", err)
	}
}
