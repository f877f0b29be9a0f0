package interop

import (
	"strconv"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/task"
)

// TestF41Deaths kills a worker of either language while it holds messages, with only the other language left to notice.
func TestF41Deaths(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, []Stack{RedisStack, RabbitMQRPCStack}, func(t *testing.T, c Crossing) {
		pythonDies, goDies := pythonDiesOnRedis, goDiesOnRedis
		if c.Broker == "rabbitmq" {
			pythonDies, goDies = pythonDiesOnRabbitMQ, goDiesOnRabbitMQ
		}
		t.Run(GoToPython, func(t *testing.T) {
			c.To(GoToPython).Cell(t, "Python worker dies, Go restores", func(t *testing.T) { pythonDies(t, c) })
		})
		t.Run(PythonToGo, func(t *testing.T) {
			c.To(PythonToGo).Cell(t, "Go worker dies, Python restores", func(t *testing.T) { goDies(t, c) })
		})
	})
}

// pythonDiesOnRedis: a Python worker holds tasks sent from Go and is killed. No Python process is left; a Go worker of
// another queue sweeps the database and puts them back, and the next Python worker runs them.
func pythonDiesOnRedis(t *testing.T, c Crossing) {
	s := c.Open(t)
	s.Queue, s.AckLate, s.Prefetch = pyQueue, true, 4
	python := c.StartWorker(t, s, "prefork", 1)
	client := dial(t, s, 2)
	var results []*task.Result[any]
	for i := range 4 {
		results = append(results, send(t, client, "py.sleep", []any{longIf(i == 0)}))
	}
	rdb := redisClient(t, s.Broker)
	eventually(t, "the Python worker holds all four", func() bool { return rdb.HLen(t.Context(), "unacked").Val() == 4 })
	python.Kill()
	StartGelery(t, Settings{Broker: s.Broker, Backend: s.Backend, Queue: goQueue}, "--transport-option", "visibility_timeout=1")
	eventually(t, "the Go worker has put them back", func() bool {
		return rdb.LLen(t.Context(), pyQueue).Val() == 4 && rdb.HLen(t.Context(), "unacked").Val() == 0
	})
	c.StartWorker(t, s, "threads", 4)
	wantAll(t, results[1:])
}

// goDiesOnRedis: a Go worker holds tasks and is killed. No Go worker is left; a Python worker of another queue sweeps,
// and what comes next from the queue finds them there.
func goDiesOnRedis(t *testing.T, c Crossing) {
	s := c.Open(t)
	s.Queue, s.Visibility = goQueue, 2*time.Second
	gelery := StartGelery(t, s, "-c", "2")
	client := dial(t, s, 2)
	var results []*task.Result[any]
	for i := range 6 {
		results = append(results, send(t, client, "dev.sleep", []any{longIf(i < 2)}))
	}
	rdb := redisClient(t, s.Broker)
	eventually(t, "the Go worker holds all six", func() bool { return rdb.HLen(t.Context(), "unacked").Val() == 6 })
	gelery.Kill()
	// Python sweeps when it starts, and then only every 100 seconds: it must start when the claims are old enough.
	eventually(t, "the claims are older than the visibility timeout", func() bool {
		limit := strconv.FormatFloat(float64(time.Now().UnixMilli())/1000-s.Visibility.Seconds()-0.5, 'f', 3, 64)
		return rdb.ZCount(t.Context(), "unacked_index", "-inf", limit).Val() == 6
	})
	python := s
	python.Queue = pyQueue
	c.StartWorker(t, python, "solo", 1)
	eventually(t, "the Python worker has put them back", func() bool {
		return rdb.LLen(t.Context(), goQueue).Val() == 6 && rdb.HLen(t.Context(), "unacked").Val() == 0
	})
	StartGelery(t, s, "-c", "6")
	wantAll(t, results[2:])
}

// pythonDiesOnRabbitMQ: a Python worker is killed over the tasks it holds, and a Go worker that waits at the same queue
// gets them from the broker.
func pythonDiesOnRabbitMQ(t *testing.T, c Crossing) {
	s, server := openRabbitMQ(t)
	s.Queue, s.AckLate, s.Prefetch = "shared", true, 4
	python := c.StartWorker(t, s, "prefork", 1)
	held := holdSleeps(t, s, server, 4, 1)
	StartGelery(t, s, "-c", "8")
	python.Kill()
	wantAll(t, held)
}

// goDiesOnRabbitMQ is the same the other way round.
func goDiesOnRabbitMQ(t *testing.T, c Crossing) {
	s, server := openRabbitMQ(t)
	s.Queue = "shared"
	gelery := StartGelery(t, s, "-c", "2")
	held := holdSleeps(t, s, server, 6, 2)
	c.StartWorker(t, s, "threads", 8)
	gelery.Kill()
	wantAll(t, held)
}

// openRabbitMQ is RabbitMQRPCStack.Open with the server to ask.
func openRabbitMQ(t testing.TB) (Settings, *testservice.RabbitMQServer) {
	t.Helper()
	server := testservice.RabbitMQ(t)
	return Settings{Broker: server.URL, Backend: "rpc://"}, server
}

// holdSleeps sends n tasks to the one worker there is, of which the first ones outlast the test, waits until it holds
// all of them, and returns the others.
func holdSleeps(t *testing.T, s Settings, server *testservice.RabbitMQServer, n, long int) []*task.Result[any] {
	t.Helper()
	client := dial(t, s, 2)
	var results []*task.Result[any]
	for i := range n {
		results = append(results, send(t, client, "dev.sleep", []any{longIf(i < long)}))
	}
	eventually(t, "the worker holds all", func() bool {
		ready, unacked := server.Depth(s.Queue)
		return ready == 0 && unacked == n
	})
	return results[long:]
}

func wantAll(t *testing.T, results []*task.Result[any]) {
	t.Helper()
	for _, r := range results {
		if _, err := r.Get(within(t)); err != nil {
			t.Errorf("a task of the dead worker: %v", err)
		}
	}
}

// TestF42LeaseUnderPython holds tasks in a Go worker for several visibility timeouts of a Python worker on the same
// database: Python must not take them for dead.
func TestF42LeaseUnderPython(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, []Stack{RedisStack}, func(t *testing.T, c Crossing) {
		c.To(PythonToGo).Cell(t, "Go holds, Python sweeps", func(t *testing.T) {
			s := c.Open(t)
			s.Queue, s.Visibility = goQueue, 3*time.Second
			StartGelery(t, s)
			client := dial(t, s, 2)
			held := send(t, client, "dev.sleep", []any{9})
			rdb := redisClient(t, s.Broker)
			eventually(t, "the Go worker holds it", func() bool { return rdb.HLen(t.Context(), "unacked").Val() == 1 })
			python := s
			python.Queue = pyQueue
			for range 3 { // each start is a sweep
				c.StartWorker(t, python, "solo", 1).Stop(t, time.Minute)
			}
			if n := rdb.LLen(t.Context(), goQueue).Val(); n != 0 {
				t.Errorf("%d messages were put back while their worker lived", n)
			}
			if _, err := held.Get(within(t)); err != nil {
				t.Error(err)
			}
		})
	})
}

// longIf is how many seconds a task sleeps: it outlasts the test, or not at all.
func longIf(long bool) int {
	if long {
		return 600
	}
	return 0
}

func send(t testing.TB, client *task.Client, name string, args []any, opts ...task.SendOption) *task.Result[any] {
	t.Helper()
	r, err := client.Send(within(t), name, args, nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func redisClient(t testing.TB, url string) *goredis.Client {
	t.Helper()
	o, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	rdb := goredis.NewClient(o)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// eventually waits for a condition that nothing announces.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-limit.C:
			t.Fatalf("waited %v until %s", patience, what)
		}
	}
}
