//go:build unix

package faults

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random instants; 0: a new one")

// TestF01WorkerKilled kills workers of RabbitMQ at random instants.
func TestF01WorkerKilled(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			server := testservice.RabbitMQ(t)
			killedUnderLoad(t, onRabbitMQ(t, server, server.URL, "killed", kind), form(6, 20), comeback)
		})
	}
}

// TestF02WorkerKilled kills workers of Redis at random instants.
func TestF02WorkerKilled(t *testing.T) {
	t.Parallel()
	killedUnderLoad(t, onRedis(t, testservice.Redis(t)), form(30, 200), recovery)
}

// killedUnderLoad has two workers run while tasks stream in; each kill is followed by a new worker.
func killedUnderLoad(t *testing.T, s *scene, kills int, limit time.Duration) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	workers := []*process{s.worker(), s.worker()}
	stop := s.stream(4, 100, milliseconds(5))
	for range kills {
		<-time.After(time.Duration(random.IntN(100_000)) * time.Microsecond) // the random instant
		i := random.IntN(2)
		workers[i].kill()
		workers[i] = s.worker()
	}
	stop()
	took := s.settled(limit + recovery)
	stopped(t, workers...)
	s.account(outcome{what: "worker killed under load", faults: kills, extra: kills * prefetch, recovery: took, limit: limit})
}

// TestF03KilledWhileWaiting freezes a worker that waits on the empty queue, sends a task, which kombu's BRPOP would put
// into the frozen process, and kills. Kombu loses it every time; here it never leaves its list, so it does not even
// run twice.
func TestF03KilledWhileWaiting(t *testing.T) {
	t.Parallel()
	s := onRedis(t, testservice.Redis(t))
	kills := form(8, 50)
	for range kills {
		last := s.newestConnection()
		w := s.worker()
		s.waiting(last)
		w.freeze()
		s.sendMany(1, 0)
		// The round trip of a command after it: Redis has served whoever was blocked on the list by then.
		if err := s.rdb.Ping(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		w.kill()
	}
	heir := s.worker()
	took := s.settled(recovery)
	stopped(t, heir)
	s.account(outcome{what: "worker frozen while it waits, a task sent, worker killed", faults: kills, recovery: took, limit: recovery})
}

// connections lists the clients of the broker: their ids, which only grow, and whether they wait for an empty list.
func (s *scene) connections() map[int64]bool {
	s.Helper()
	list, err := s.rdb.ClientList(s.Context()).Result()
	if err != nil {
		s.Fatal(err)
	}
	all := map[int64]bool{}
	for line := range strings.Lines(list) {
		client := map[string]string{}
		for _, field := range strings.Fields(line) {
			name, value, _ := strings.Cut(field, "=")
			client[name] = value
		}
		id, err := strconv.ParseInt(client["id"], 10, 64)
		if err != nil {
			s.Fatalf("no id in %s", line)
		}
		all[id] = client["cmd"] == "blmove" && strings.Contains(client["flags"], "b")
	}
	return all
}

func (s *scene) newestConnection() int64 {
	return slices.Max(slices.Collect(maps.Keys(s.connections())))
}

// waiting returns when the worker that connected after a connection is blocked on every list of its empty queue, with
// nothing in hand.
func (s *scene) waiting(after int64) {
	s.Helper()
	s.await(recovery, "the worker waits on its empty queue", func() bool {
		blocked := 0
		for id, waits := range s.connections() {
			if waits && id > after {
				blocked++
			}
		}
		return blocked == priorityLists && s.rdb.HLen(s.Context(), "unacked").Val() == 0
	})
}

// TestF04KillPoints has workers kill themselves between the result and the acknowledgement of a task, between RETRY and
// the message of the next attempt, and between that and the acknowledgement of the old one. A worker that holds one message
// has one run too many for each kill; one that holds more may have begun all of them when it acknowledges the first.
func TestF04KillPoints(t *testing.T) {
	t.Parallel()
	points := []struct {
		name  string
		what  string
		point killPoint
		retry bool
	}{
		{"Result", "worker killed between result and acknowledgement", beforeSettle, false},
		{"Retry", "worker killed between RETRY and the next attempt's message", beforePublish, true},
		{"Retried", "worker killed between the next attempt's message and the acknowledgement", beforeSettle, true},
	}
	for _, p := range points {
		for name, holds := range form(map[string]int{"One": 1}, map[string]int{"One": 1, "Many": prefetch}) {
			t.Run(p.name+name, func(t *testing.T) {
				t.Parallel()
				onEach(t, func(t *testing.T, s *scene) {
					s.setup.Slots, s.setup.Prefetch, s.setup.MaxDeliveries = min(slots, holds), holds, -1
					kills := form(2, 20)
					for i := range kills {
						if p.retry {
							s.sendAgain(2)
						} else {
							s.sendMany(2, 5)
						}
						w := s.worker(func(told *setup) { told.Kill, told.KillAt = p.point, 1+i%2 })
						if err := w.wait(recovery); err == nil || w.cmd.ProcessState.ExitCode() != -1 {
							t.Fatalf("the worker did not kill itself: %v: %s", err, w.log)
						}
					}
					heir := s.worker()
					took := s.settled(2 * recovery)
					stopped(t, heir)
					s.account(outcome{what: fmt.Sprintf("%s; it holds up to %d", p.what, holds), faults: kills, extra: kills * holds, recovery: took, limit: recovery})
				})
			})
		}
	}
}

// sendAgain sends tasks that ask for a retry once, and note their second run.
func (s *scene) sendAgain(n int) {
	s.Helper()
	for range n {
		id := protocol.NewID()
		_, err := again.Send(deadlineOf(s.TB, patient), s.client, task.NoArgs{}, task.ID(id))
		s.record(err, id)
	}
}

// TestStoppedUnderLoad stops workers warm one after the other, which is no fault: nothing runs twice.
func TestStoppedUnderLoad(t *testing.T) {
	t.Parallel()
	s := onRedis(t, testservice.Redis(t))
	s.sendMany(500, 2)
	for range form(4, 10) {
		stopped(t, s.worker())
	}
	w := s.worker()
	s.settled(recovery)
	stopped(t, w)
	a := Balance(s.accepted, s.ledger.Counts(s))
	t.Logf("stopped under load: %v", a)
	if a.Lost+a.Extra+a.Ghosts > 0 {
		t.Error(a)
	}
}
