//go:build unix

package faults

import (
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// TestF13Spin has tasks never end: the hard limit marks them FAILURE, and when too many slots are taken by them the
// worker ends by itself, and loses nothing.
func TestF13Spin(t *testing.T) {
	t.Parallel()
	s := onRedis(t, testservice.Redis(t))
	limited := func(told *setup) { told.TimeLimit = time.Second }
	w := s.worker(limited)
	r := s.offend("spin")
	_, err := r.Get(deadlineOf(t, 2*comeback))
	if err == nil || !strings.Contains(err.Error(), "TimeLimitExceeded") {
		t.Errorf("the result is %v; expected TimeLimitExceeded", err)
	}
	s.sendMany(20, 5) // which run beside it
	s.settled(recovery)
	if !w.alive() {
		t.Fatalf("the worker has ended for one slot: %s", w.log)
	}
	for range slots {
		s.offend("spin")
	}
	err = w.wait(recovery)
	if err == nil || !strings.Contains(w.log.String(), "abandoned") && !strings.Contains(w.log.String(), "given up") {
		t.Errorf("the worker has not ended by itself: %v: %s", err, w.log)
	}
	s.sendMany(20, 5)
	heir := s.worker(limited)
	s.settled(2 * recovery)
	_ = heir.stop() // it may have been given a task that does not end
	s.account(outcome{what: "tasks that do not end, hard limit 1 s", faults: slots + 1, extra: prefetch})
}

// TestF13SpinInChild has tasks of a process pool never end: the child is killed at the hard limit, and nothing else is
// touched.
func TestF13SpinInChild(t *testing.T) {
	t.Parallel()
	s := onRedis(t, testservice.Redis(t))
	w := s.worker(func(told *setup) { told.TimeLimit, told.Pool = time.Second, worker.PoolProcess })
	var results []*task.Result[task.NoResult]
	for range 2 * slots {
		results = append(results, s.offend("spin"))
	}
	s.sendMany(20, 5)
	for _, r := range results {
		if _, err := r.Get(deadlineOf(t, recovery)); err == nil || !strings.Contains(err.Error(), "TimeLimitExceeded") {
			t.Errorf("the result is %v; expected TimeLimitExceeded", err)
		}
	}
	s.settled(recovery)
	stopped(t, w)
	s.account(outcome{what: "tasks that do not end in a process pool, hard limit 1 s", faults: 2 * slots})
}

// TestF14MemoryOfChild has tasks of a process pool take more memory than a child may have: the child is killed, and
// nothing else is touched.
func TestF14MemoryOfChild(t *testing.T) {
	t.Parallel()
	s := onRedis(t, testservice.Redis(t))
	w := s.worker(func(told *setup) { told.MemoryLimit, told.Pool = 200<<20, worker.PoolProcess })
	const faults = 2
	for range faults {
		if _, err := s.offend("blow").Get(deadlineOf(t, recovery)); err == nil {
			t.Error("no failure")
		}
		s.sendMany(10, 5)
	}
	s.settled(recovery)
	stopped(t, w)
	s.account(outcome{what: "out of memory in a process pool, 200 MB a child", faults: faults})
}

// TestF14Memory has a task take more memory than its process may have: the process is gone, and the task set aside in
// the end.
func TestF14Memory(t *testing.T) {
	t.Parallel()
	s := onRedis(t, testservice.Redis(t))
	prlimit := testservice.Program(t, "PRLIMIT", "prlimit") // of util-linux
	told := s.setup
	told.MaxDeliveries = 1
	r := s.offend("blow")
	s.sendMany(10, 5)
	deaths := 0
	for ; ; deaths++ {
		w := told.start(t, prlimit, "--as=2500000000") // of which Go reserves half
		s.await(2*recovery, "the worker ends, or the task is set aside", func() bool { return !w.alive() || len(s.parked()) > 0 })
		if w.alive() {
			s.settled(2 * recovery)
			stopped(t, w)
			break
		}
		if !strings.Contains(w.log.String(), "memory") || deaths > 2 {
			t.Fatalf("%d workers have died: %s", deaths, w.log)
		}
	}
	s.account(outcome{what: "out of memory in a task, again and again; MaxDeliveries 1", faults: deaths, extra: deaths * prefetch, parked: 1})
	s.lostWorker(r)
}

// TestF15Leak has tasks leave goroutines behind: the worker goes on, and stops warm.
func TestF15Leak(t *testing.T) {
	t.Parallel()
	s := onRedis(t, testservice.Redis(t))
	w := s.worker()
	n := form(300, 10_000)
	for range n {
		s.offend("leak")
	}
	s.settled(2 * recovery)
	goroutines, _ := s.has()
	if goroutines < 10*n {
		t.Errorf("the worker has %d goroutines; expected the %d that were left behind", goroutines, 10*n)
	}
	s.settled(recovery)
	stopped(t, w)
	s.account(outcome{what: "ten goroutines left behind by each task", faults: n})
}

// TestF17Failures compares the throughput of tasks that panic with that of tasks that succeed, in turn.
func TestF17Failures(t *testing.T) {
	t.Parallel()
	s := onRedis(t, testservice.Redis(t))
	const batch = 500
	w := s.worker()
	measure := func(how string) time.Duration {
		start := time.Now()
		calls := make([]misdeed, batch)
		for i := range calls {
			calls[i].How = how
		}
		results, err := misbehave.SendBatch(deadlineOf(t, patient), s.client, calls)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			s.record(nil, r.ID())
		}
		s.settled(2 * recovery)
		return time.Since(start)
	}
	var good, bad time.Duration
	rounds := form(2, 20)
	for range rounds {
		good += measure("nothing")
		bad += measure("panic")
	}
	t.Logf("%d tasks took %v, as many that panic %v; peak memory %d MB", rounds*batch, good, bad, resident(t, w)>>20)
	stopped(t, w)
	if bad > 2*good+2*time.Second {
		t.Errorf("tasks that panic took %v, those that succeed %v; expected at most twice as long", bad, good)
	}
	s.account(outcome{what: "panics at full speed", faults: rounds * batch})
}

// TestF18SlowConsumer has one slow slot and a long queue: the worker holds no more than it may, and a second one shares
// the queue at once.
func TestF18SlowConsumer(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, s *scene) {
		one := func(told *setup) { told.Slots, told.Prefetch = 1, 4 }
		w := s.worker(one)
		s.sendMany(form(1000, 10_000), 0)
		s.sendMany(40, form(50, 250))
		s.await(recovery, "only slow tasks are left", func() bool { waiting, _ := s.depth(); return waiting < 40 })
		before := resident(t, w)
		if _, held := s.depth(); held > 4 {
			t.Errorf("%d are held; expected at most 4", held)
		}
		other := s.worker(one)
		took := s.await(comeback, "the second worker has its share", func() bool { return len(s.byProcess()) > 1 })
		s.settled(recovery)
		t.Logf("peak memory %d MB", before>>20)
		if before > 64<<20 {
			t.Errorf("peak memory is %d MB; expected at most 64", before>>20)
		}
		stopped(t, w, other)
		s.account(outcome{what: "one slow slot, a long queue, then a second worker; recovery is the time to its first task", faults: 1, recovery: took, limit: comeback})
	})
}

// byProcess counts the runs of each worker process.
func (s *scene) byProcess() map[string]int {
	counts := map[string]int{}
	for _, line := range s.ledger.lines(s) {
		if fields := strings.Fields(line); len(fields) > 1 {
			counts[fields[1]]++
		}
	}
	return counts
}

// TestF19Subtasks has a task send subtasks and end its process: each of them runs, and when it runs again the same ones
// are sent, by their ids.
func TestF19Subtasks(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, s *scene) {
		n, id := form(100, 1000), protocol.NewID()
		_, err := spawn.Send(deadlineOf(t, patient), s.client, spawnArgs{n}, task.ID(id))
		s.record(err, id)
		w := s.worker()
		if err := w.wait(recovery); err == nil {
			t.Fatal("the worker did not end")
		}
		for i := range n {
			s.record(nil, subtask(id, i))
		}
		heir := s.worker()
		took := s.await(2*recovery, "the task runs again", func() bool { return s.ledger.Counts(t)[id] > 1 })
		s.settled(recovery)
		stopped(t, heir)
		s.account(outcome{what: "task sends subtasks with ids made of its own and ends its process", faults: 1, extra: n + prefetch, recovery: took, limit: recovery})
	})
}
