//go:build unix

package faults

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
)

// TestF05Frozen freezes a worker: for less than its lease nothing happens, for longer another worker runs its tasks, and
// what it reports when it wakes up changes nothing.
func TestF05Frozen(t *testing.T) {
	t.Parallel()
	s := onRedis(t, testservice.Redis(t))
	w := s.worker()
	s.sendMany(20, 100)
	s.ran(slots)
	w.freeze()
	<-time.After(form(2*time.Second, 5*time.Second)) // shorter than a lease
	w.signal(syscall.SIGCONT)
	s.settled(recovery)
	if a := Balance(s.accepted, s.ledger.Counts(t)); a.Extra > 0 {
		t.Errorf("after a short rest %v", a)
	}

	const long = 1500 // milliseconds
	r, err := note.Send(deadlineOf(t, patient), s.client, noteArgs{long})
	s.record(err, r.ID())
	s.await(recovery, "the long task has begun", func() bool { return s.ledger.Counts(t)[r.ID()] == 1 })
	w.freeze()
	frozen := time.Now()
	other := s.worker()
	pid, err := r.Get(deadlineOf(t, recovery+10*time.Second))
	took := time.Since(frozen)
	if err != nil || pid != other.cmd.Process.Pid {
		t.Fatalf("the result is %d, %v; expected that of the other worker, %d", pid, err, other.cmd.Process.Pid)
	}
	if long := form(0, 60*time.Second); took < long {
		<-time.After(long - took)
	}
	w.signal(syscall.SIGCONT)
	s.sendMany(20, 5)
	s.settled(recovery)
	stopped(t, w, other) // and with it, all that the frozen one had to report is reported
	if pid, err = r.Get(deadlineOf(t, comeback)); err != nil || pid != other.cmd.Process.Pid {
		t.Errorf("the result has become %d, %v", pid, err)
	}
	s.account(outcome{what: "worker frozen, shorter and longer than its lease", faults: 2, extra: prefetch, recovery: took, limit: recovery})
}

// TestF06Terminated sends SIGTERM to a worker under load: running tasks end, what waits goes back, nothing runs twice.
func TestF06Terminated(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, s *scene) {
		const length = 300
		s.sendMany(60, length)
		stops, longest := form(2, 10), time.Duration(0)
		for i := range stops {
			w := s.worker()
			s.ran(min(60, (i+1)*slots))
			start := time.Now()
			w.signal(syscall.SIGTERM)
			if err := w.wait(recovery); err != nil {
				t.Errorf("warm stop: %v: %s", err, w.log)
			}
			longest = max(longest, time.Since(start))
		}
		w := s.worker()
		s.settled(recovery)
		stopped(t, w)
		s.account(outcome{what: "SIGTERM under load, tasks of " + strconv.Itoa(length) + " ms; recovery is the time to the end of the process",
			faults: stops, recovery: longest, limit: length*time.Millisecond + 2*time.Second})
	})
}

// TestF08TerminatedWithoutBroker sends SIGTERM to a worker while its broker is away: it ends within its stop timeout, and
// nothing is lost.
func TestF08TerminatedWithoutBroker(t *testing.T) {
	t.Parallel()
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		server := testservice.StartRedis(t, "--appendonly", "yes")
		terminatedWithoutBroker(t, onRedis(t, server.URL), func() { server.SyncAppendOnly(); server.Kill() }, server.Restart, 12*time.Second) // it tries to give back
	})
	t.Run("rabbitmq", func(t *testing.T) {
		t.Parallel()
		server := testservice.StartRabbitMQ(t)
		terminatedWithoutBroker(t, onRabbitMQ(t, server, server.URL, "away", "classic"), server.Kill, server.Restart, 2*time.Second)
	})
}

func terminatedWithoutBroker(t *testing.T, s *scene, kill, restart func(), grace time.Duration) {
	const timeout = 3 * time.Second
	w := s.worker(func(told *setup) { told.StopTimeout = timeout })
	s.sendMany(40, 200)
	s.ran(slots)
	kill()
	<-time.After(500 * time.Millisecond) // tasks end meanwhile, and cannot be acknowledged
	start := time.Now()
	w.signal(syscall.SIGTERM)
	err := w.wait(recovery)
	took := time.Since(start)
	t.Logf("ended after %v: %v: %s", took, err, w.log)
	if code := w.cmd.ProcessState.ExitCode(); code != 0 && code != 1 {
		t.Errorf("exit code %d", code)
	}
	restart()
	heir := s.worker()
	s.settled(2 * recovery)
	stopped(t, heir)
	s.account(outcome{what: "SIGTERM while the broker is away, stop timeout 3 s; recovery is the time to the end of the process", faults: 1,
		extra: prefetch, recovery: took, limit: timeout + grace})
}
