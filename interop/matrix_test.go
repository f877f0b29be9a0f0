package interop

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	_ "github.com/gelery/gelery/backends/redis"
	_ "github.com/gelery/gelery/backends/rpc"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/rabbitmq"
	_ "github.com/gelery/gelery/transport/redis"
)

// Queues of the two sides.
const (
	goQueue = "go"
	pyQueue = "py"
)

// patience bounds each wait for a result. It is met in milliseconds; a busy machine may need seconds.
const patience = time.Minute

// TestMatrix is the promise "a task moves from Python to Go and back without either side noticing", cell by cell: every
// argument set by every serializer and both protocols, and every compression.
func TestMatrix(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, everyStack, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		t.Run(PythonToGo, func(t *testing.T) {
			s := s
			s.Queue = goQueue
			StartGelery(t, s, "--accept-content", "json,msgpack,yaml", "--track-started")
			pythonToGo(t, c.To(PythonToGo), s)
		})
		t.Run(GoToPython, func(t *testing.T) {
			s := s
			s.Queue, s.TrackStarted = pyQueue, true
			c.StartWorker(t, s, "threads", 4)
			goToPython(t, c.To(GoToPython), s)
		})
	})
}

var everyStack = []Stack{RedisStack, RabbitMQStack, RabbitMQRPCStack}

// ways are the variants in which every argument set crosses. A message is the same on RabbitMQ whatever becomes of its
// result, so each form of it crosses with rpc results alone. With results in Redis every set crosses once: it comes back
// in a result, and that is what is compared there.
func (k Stack) ways() []variant {
	if k == RabbitMQStack {
		return []variant{{protocol: 2, serializer: "json"}}
	}
	return plain()
}

// packings are the compressions in which one set crosses in every way.
func (k Stack) packings(names ...string) []variant {
	if k == RabbitMQStack {
		return nil
	}
	return compressed(names...)
}

// TestPools sends to Python workers of every pool: what a pool does to requests is Celery's own business, that it
// understands ours is not.
func TestPools(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, []Stack{RedisStack, RabbitMQRPCStack}, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		s.AckLate = true
		for _, pool := range []string{"solo", "prefork"} {
			s.Queue = pyQueue + "-" + pool
			c.StartWorker(t, s, pool, 2)
			client := dial(t, s, 2)
			c.To(GoToPython).Cell(t, "pool "+pool, func(t *testing.T) {
				wantResult(t, client, "py.add", []any{2, 3}, int64(5))
			})
		}
	})
}

// variant is one way to write a message.
type variant struct {
	protocol    int
	serializer  string
	compression string
}

func (v variant) String() string {
	name := fmt.Sprintf("protocol %d %s", v.protocol, v.serializer)
	if v.compression != "" {
		name += " " + v.compression
	}
	return name
}

// plain are the variants that are not compressed.
func plain() []variant {
	var all []variant
	for _, protocol := range []int{1, 2} {
		for _, serializer := range everySerializer {
			all = append(all, variant{protocol: protocol, serializer: serializer})
		}
	}
	return all
}

// compressed are the variants with each of the compressions.
func compressed(names ...string) []variant {
	var all []variant
	for _, v := range plain() {
		for _, v.compression = range names {
			all = append(all, v)
		}
	}
	return all
}

// carries reports whether a set keeps its values through a serializer between Gelery and a Celery version.
func (s set) carries(v Version, serializer string) bool {
	return slices.Contains(s.via, serializer) && (!s.typed || v.AtLeast("5.3"))
}

// dial opens a Go client on the same broker, backend and queue as the Python side.
func dial(t testing.TB, s Settings, protocol int) *task.Client {
	t.Helper()
	return connect(t, task.Config{Broker: s.Broker, Backend: s.Backend, Queue: s.Queue, Protocol: protocol})
}

func connect(t testing.TB, config task.Config) *task.Client {
	t.Helper()
	config.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	client, err := task.Dial(within(t), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own context is over by now.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := client.Close(ctx); err != nil {
			t.Errorf("close the client: %v", err)
		}
	})
	return client
}

// within returns a context that ends with the test, or before it when patience does.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
