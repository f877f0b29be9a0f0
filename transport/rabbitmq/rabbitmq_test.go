package rabbitmq

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
	"github.com/gelery/gelery/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTransportClassic(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, newHarness)
}

func TestTransportQuorum(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, func(t testing.TB) transporttest.Harness {
		h := newHarness(t)
		h.Arguments = map[string]any{"x-queue-type": "quorum"}
		h.NoPriorities = true // RabbitMQ 3 has none in quorum queues
		return h
	})
}

func newHarness(t testing.TB) transporttest.Harness {
	s := testservice.RabbitMQ(t)
	return transporttest.Harness{
		Open:   func(t testing.TB) transport.Transport { return openOn(t, s) },
		Inject: func(t testing.TB, queue string, raw []byte) { s.Put(queue, raw) },
	}
}

// openOn opens a connection to the server that can ask its management plugin; whoever asks for it closes it.
func openOn(t testing.TB, s *testservice.RabbitMQServer) transport.Transport {
	t.Helper()
	return connectWith(t, s.URL, map[string]any{"management_url": s.ManagementURL})
}

// connect opens a connection to the broker at a URL.
func connect(t testing.TB, url string) transport.Transport {
	t.Helper()
	return connectWith(t, url, nil)
}

func connectWith(t testing.TB, url string, options map[string]any) transport.Transport {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tr, err := open(ctx, url, transport.Options{TransportOptions: options, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}
