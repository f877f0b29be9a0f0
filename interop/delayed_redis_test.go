package interop

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/task"
)

// TestDelayedUnderPython has a Go worker leave tasks that are not due with Redis, beside Python workers whose visibility
// timeout is shorter than that: they must leave them alone until long after their eta, and then run them if nobody else
// has. The oldest and the newest Celery.
func TestDelayedUnderPython(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, []Stack{RedisStack}, func(t *testing.T, c Crossing) {
		if c.Version.Name != versions[0] && c.Version.Name != versions[len(versions)-1] {
			return
		}
		t.Run(PythonToGo, func(t *testing.T) {
			t.Parallel()
			c.To(PythonToGo).Cell(t, "Go delays, Python sweeps", func(t *testing.T) { pythonSweepsDelayed(t, c) })
		})
		t.Run(GoToPython, func(t *testing.T) {
			t.Parallel()
			c.To(GoToPython).Cell(t, "Go delays and dies, Python restores", func(t *testing.T) { pythonRestoresDelayed(t, c) })
		})
	})
}

const delayedTasks = 20

// pythonSweepsDelayed: both work on the queue. A Python worker starts, and sweeps, when the tasks have been with the
// worker for longer than its visibility timeout. Each task runs once, on either side, and none before its eta.
func pythonSweepsDelayed(t *testing.T, c Crossing) {
	s := c.Open(t)
	s.Queue, s.Visibility = "shared", 2*time.Second
	ledger := filepath.Join(t.TempDir(), "ledger")
	defer runWorker(t, task.Config{Broker: s.Broker, Backend: s.Backend, Queue: s.Queue})()
	client := dial(t, s, 2)
	eta := time.Now().Add(8 * time.Second)
	var want []string
	for range delayedTasks {
		r, err := client.Send(within(t), "py.touch", []any{ledger}, nil, task.ETA(eta))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, r.ID())
	}
	rdb := redisClient(t, s.Broker)
	awaitDelayed(t, rdb, s.Queue)
	eventually(t, "they are there for longer than the visibility timeout", func() bool { return time.Until(eta) < 8*time.Second-s.Visibility-time.Second })
	c.StartWorker(t, s, "solo", 1)
	if d := time.Until(eta); d < 100*time.Millisecond {
		t.Logf("the Python worker was ready only %v before the eta", d)
	}
	eventually(t, "the eta is near", func() bool { return time.Until(eta) < 50*time.Millisecond })
	if ran := lines(t, ledger); len(ran) > 0 && time.Until(eta) > 0 {
		t.Errorf("%d tasks ran early", len(ran))
	}
	eventually(t, "all have run and nothing is held", func() bool {
		return len(lines(t, ledger)) >= delayedTasks && rdb.HLen(t.Context(), "unacked").Val()+rdb.LLen(t.Context(), s.Queue).Val() == 0
	})
	ran := lines(t, ledger)
	slices.Sort(ran)
	slices.Sort(want)
	if !slices.Equal(ran, want) {
		t.Errorf("ran %d times; expected each of the %d once", len(ran), delayedTasks)
	}
}

// pythonRestoresDelayed: the Go worker is killed and none is left. A Python worker that sweeps before the eta and the
// timeout have passed finds nothing, one that sweeps after them runs all.
func pythonRestoresDelayed(t *testing.T, c Crossing) {
	s := c.Open(t)
	s.Queue, s.Visibility = "shared", 5*time.Second
	gelery := StartGelery(t, s)
	client := dial(t, s, 2)
	eta := time.Now().Add(4 * time.Second)
	var results []*task.Result[any]
	for range delayedTasks {
		r, err := client.Send(within(t), "dev.sleep", []any{0}, nil, task.ETA(eta))
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, r)
	}
	rdb := redisClient(t, s.Broker)
	awaitDelayed(t, rdb, s.Queue)
	gelery.Kill()
	python := s
	python.Queue = pyQueue
	c.StartWorker(t, python, "solo", 1).Stop(t, time.Minute) // each start is a sweep
	if early := time.Until(eta.Add(s.Visibility)); early < 0 {
		t.Logf("the first sweep came %v too late to be early", -early)
	} else if n := rdb.LLen(t.Context(), s.Queue).Val(); n != 0 {
		t.Errorf("%d were put back %v before their eta and the timeout", n, early)
	}
	// Where the first sweep came late, they are in the queue already.
	eventually(t, "the timeout has passed since the eta", func() bool {
		limit := strconv.FormatFloat(float64(time.Now().UnixMilli())/1000-s.Visibility.Seconds()-0.5, 'f', 3, 64)
		return rdb.ZCount(t.Context(), "unacked_index", "-inf", limit).Val()+rdb.LLen(t.Context(), s.Queue).Val() == delayedTasks
	})
	c.StartWorker(t, s, "solo", 1)
	wantAll(t, results)
	if n := rdb.HLen(t.Context(), "unacked").Val(); n != 0 {
		eventually(t, "all are acknowledged", func() bool { return rdb.HLen(t.Context(), "unacked").Val() == 0 })
	}
}

// awaitDelayed waits until all tasks are left with the broker and no worker holds one.
func awaitDelayed(t *testing.T, rdb *goredis.Client, queue string) {
	t.Helper()
	eventually(t, "all are delayed", func() bool {
		return rdb.ZCard(t.Context(), "_gelery.delayed."+queue).Val() == delayedTasks && rdb.LLen(t.Context(), queue).Val() == 0
	})
}

// lines reads a ledger; it may not be there yet.
func lines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}
