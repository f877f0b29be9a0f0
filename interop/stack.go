//go:build unix

package interop

import (
	"testing"

	"github.com/gelery/gelery/internal/testservice"
)

// Stack is a broker with a result backend, each by its kind: "redis", "rabbitmq"; "redis", "rpc".
type Stack struct{ Broker, Backend string }

// The stacks of the matrix. Results as messages over Redis are left to the tests of backends/rpc: who has Redis stores
// results there.
var (
	RedisStack       = Stack{Broker: "redis", Backend: "redis"}
	RabbitMQStack    = Stack{Broker: "rabbitmq", Backend: "redis"}
	RabbitMQRPCStack = Stack{Broker: "rabbitmq", Backend: "rpc"}
)

func (k Stack) String() string { return k.Broker + "+" + k.Backend }

// Open makes the broker and the backend of this test alone.
func (k Stack) Open(t testing.TB) Settings {
	t.Helper()
	var s Settings
	switch k.Broker {
	case "redis":
		s.Broker = testservice.Redis(t)
	case "rabbitmq":
		s.Broker = testservice.RabbitMQ(t).URL
	default:
		t.Fatalf("stack %v: unknown broker", k)
	}
	switch {
	case k.Backend == "rpc":
		s.Backend = "rpc://"
	case k.Broker == "redis":
		s.Backend = s.Broker[:len(s.Broker)-1] + "1" // another database of the same server
	default:
		s.Backend = testservice.Redis(t)
	}
	return s
}

// ForEachCrossing runs f for every Celery version over every one of the stacks. What it is given lacks the direction.
func ForEachCrossing(t *testing.T, stacks []Stack, f func(t *testing.T, c Crossing)) {
	t.Helper()
	ForEachVersion(t, func(t *testing.T, v Version) {
		for _, k := range stacks {
			t.Run(k.String(), func(t *testing.T) {
				t.Parallel()
				f(t, Crossing{Version: v, Stack: k})
			})
		}
	})
}
