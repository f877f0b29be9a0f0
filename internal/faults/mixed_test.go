//go:build unix

package faults

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/interop"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// What a Python worker of these tests has.
const (
	pythonSlots    = 2
	pythonPrefetch = 4 // of each slot
	pythonHolds    = pythonSlots * pythonPrefetch
	pythonRisk     = pythonSlots * (1 + pythonPrefetch) // what it has begun, holds or is taking
)

// python starts a Python worker that acknowledges late, as ours do, and notes its runs in the same ledger.
func (s *scene) python(queue string, visibility time.Duration) *interop.Process {
	s.Helper()
	settings := interop.Settings{Broker: s.setup.Broker, Queue: queue, AckLate: true, Prefetch: pythonPrefetch, Visibility: visibility,
		Conf: map[string]any{"task_ignore_result": true, "broker_connection_retry_on_startup": true, "task_reject_on_worker_lost": true}}
	cmd := interop.FindVersion(s, "5.6").Command(s, settings, "celery", "-A", "app", "worker", "-l", "info", "-P", "prefork",
		"-c", strconv.Itoa(pythonSlots), "-Q", queue, "-n", fmt.Sprintf("py%d-%s@%%h", os.Getpid(), protocol.NewID()), "--without-mingle", "--without-gossip")
	cmd.Env = append(cmd.Env, "GELERY_FAULTS_LEDGER="+s.ledger.Path)
	p := interop.Start(s, "celery-worker", cmd)
	p.WaitFor(s, `\bready\.`, time.Minute)
	return p
}

// onPythons runs a fault on the brokers as Python workers use them.
func onPythons(t *testing.T, f func(t *testing.T, s *scene)) {
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		f(t, onRedis(t, testservice.Redis(t)))
	})
	t.Run("classic", func(t *testing.T) {
		t.Parallel()
		server := testservice.RabbitMQ(t)
		f(t, onRabbitMQ(t, server, server.URL, "faults", "classic"))
	})
}

// TestF41PythonKilled kills a Python worker that holds all it may, with only Go workers left to notice. That one restores
// what the other held with every version of Celery is tested in interop.
func TestF41PythonKilled(t *testing.T) {
	t.Parallel()
	onPythons(t, func(t *testing.T, s *scene) {
		const visibility = 3 * time.Second
		if s.rdb != nil {
			s.setup.Options = map[string]any{"visibility_timeout": visibility.Seconds()}
		}
		kills, longest := form(1, 5), time.Duration(0)
		for range kills {
			python := s.python(s.setup.Queue, visibility)
			s.sendMany(pythonHolds+2, 2000)
			// It takes nothing more then, so that kombu has nothing between its BRPOP and its entry in unacked.
			s.await(recovery, "the Python worker holds all it may", func() bool { _, held := s.depth(); return held == pythonHolds })
			python.Kill()
			w := s.worker()
			longest = max(longest, s.settled(2*recovery))
			stopped(t, w)
		}
		s.account(outcome{what: "Python worker killed, Go restores; recovery is the time until all is done", faults: kills, extra: kills * pythonRisk,
			recovery: longest, limit: recovery})
	})
}

// TestF41GoKilled is the same the other way round.
func TestF41GoKilled(t *testing.T) {
	t.Parallel()
	onPythons(t, func(t *testing.T, s *scene) {
		const visibility = 3 * time.Second
		kills, longest := form(1, 5), time.Duration(0)
		for range kills {
			w := s.worker()
			s.sendMany(prefetch, 2000)
			s.await(recovery, "the Go worker holds all", func() bool { waiting, held := s.depth(); return waiting == 0 && held == prefetch })
			w.kill()
			if s.rdb != nil {
				// Python sweeps when it starts, and then only every 100 seconds: it must start when the claims are old enough.
				s.await(recovery, "the claims are older than the visibility timeout", func() bool {
					old := strconv.FormatFloat(float64(time.Now().UnixMilli())/1000-visibility.Seconds()-0.5, 'f', 3, 64)
					return s.rdb.ZCount(t.Context(), "unacked_index", "-inf", old).Val() == prefetch
				})
			}
			python := s.python(s.setup.Queue, visibility)
			longest = max(longest, s.settled(2*recovery))
			python.Stop(t, time.Minute)
		}
		s.account(outcome{what: "Go worker killed, Python restores; recovery is the time from Python's start until all is done", faults: kills,
			extra: kills * prefetch, recovery: longest, limit: recovery})
	})
}

// TestF42LeaseUnderPython has a Go worker hold a task, and another that is not due, for several visibility timeouts of a
// Python worker that sweeps the same database: neither runs twice.
func TestF42LeaseUnderPython(t *testing.T) {
	t.Parallel()
	s := onRedis(t, testservice.Redis(t))
	visibility, times := form(2*time.Second, 4*time.Second), 5
	w := s.worker()
	length := time.Duration(times) * visibility
	held, err := s.send(deadlineOf(t, patient), int(length.Milliseconds()))
	if err != nil {
		t.Fatal(err)
	}
	id := protocol.NewID()
	_, err = note.Send(deadlineOf(t, patient), s.client, noteArgs{}, task.ID(id), task.Countdown(length))
	s.record(err, id)
	s.await(recovery, "the task has begun", func() bool { return s.ledger.Counts(t)[held] == 1 })
	<-time.After(visibility) // without a lease it would be up for grabs
	sweeps := 0
	for over := time.Now().Add(length - visibility); sweeps == 0 || time.Now().Before(over); sweeps++ { // each start is a sweep
		s.python("python", visibility).Stop(t, time.Minute)
	}
	s.settled(recovery)
	stopped(t, w)
	s.account(outcome{what: fmt.Sprintf("a running task and one that is not due, %d visibility timeouts of a Python worker that sweeps", times), faults: sweeps})
}
