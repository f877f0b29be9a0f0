package interop

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	_ "github.com/gelery/gelery/backends/redis"
	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/task"
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
	ForEachVersion(t, func(t *testing.T, v Version) {
		redis := testservice.Redis(t)
		broker, backend := redis, database(redis, 1)

		t.Run(PythonToGo, func(t *testing.T) {
			s := Settings{Broker: broker, Backend: backend, Queue: goQueue}
			StartGelery(t, s, "--accept-content", "json,msgpack,yaml", "--track-started")
			pythonToGo(t, v, v.StartDriver(t, s))
		})
		t.Run(GoToPython, func(t *testing.T) {
			s := Settings{Broker: broker, Backend: backend, Queue: pyQueue, TrackStarted: true}
			v.StartWorker(t, s, "threads", 4)
			goToPython(t, v, func(t testing.TB, protocol int) *task.Client { return dial(t, s, protocol) })
		})
	})
}

// TestPools sends to Python workers of every pool: what a pool does to requests is Celery's own business, that it
// understands ours is not.
func TestPools(t *testing.T) {
	t.Parallel()
	ForEachVersion(t, func(t *testing.T, v Version) {
		redis := testservice.Redis(t)
		for _, pool := range []string{"solo", "prefork"} {
			s := Settings{Broker: redis, Backend: database(redis, 1), Queue: pyQueue + "-" + pool, AckLate: true}
			v.StartWorker(t, s, pool, 2)
			client := dial(t, s, 2)
			Cell(t, v, GoToPython, "pool "+pool, func(t *testing.T) {
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

// database is the URL of another database of the same Redis.
func database(url string, n int) string { return fmt.Sprintf("%s%d", url[:len(url)-1], n) }

// dial opens a Go client on the same broker, backend and queue as the Python side.
func dial(t testing.TB, s Settings, protocol int) *task.Client {
	t.Helper()
	ctx := within(t)
	client, err := task.Dial(ctx, task.Config{Broker: s.Broker, Backend: s.Backend, Queue: s.Queue, Protocol: protocol})
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
