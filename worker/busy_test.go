//go:build unix

package worker

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// TestPingWhileBusy: a worker answers while tasks use up all processors in all of its slots, and more wait than it holds. The
// figure is in the log (go test -v); what is wanted of it is for a machine that has nothing else to do.
func TestPingWhileBusy(t *testing.T) {
	t.Parallel()
	for name, broker := range map[string]func() string{
		"redis":    func() string { return testservice.Redis(t) },
		"rabbitmq": func() string { return testservice.RabbitMQ(t).URL },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const tasks, pings = 2000, 30
			url := broker() // it may take its time
			dialing, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			client, err := task.Dial(dialing, task.Config{Broker: url, Backend: "memory://" + protocol.NewID(), IgnoreResult: true,
				Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = client.Close(context.Background()) })
			s := &site{T: t, client: client, mux: NewMux(), done: make(chan error, 1)}
			var enough atomic.Bool
			began := make(chan struct{}, tasks)
			s.mux.Func("spin", func(context.Context) {
				began <- struct{}{}
				for until := time.Now().Add(time.Millisecond); time.Now().Before(until) && !enough.Load(); {
				}
			})
			if _, err := client.SendBatch(s.context(), slices.Repeat([]task.Call{{Name: "spin"}}, tasks)); err != nil {
				t.Fatal(err)
			}
			s.start(Config{Concurrency: 4})
			m := s.mailbox()
			await(t, began, "the first task")
			times := make([]time.Duration, pings)
			for i := range times {
				sent := time.Now()
				m.want("ping", nil, "map[ok:pong]")
				times[i] = time.Since(sent)
			}
			ran := len(began)
			enough.Store(true)
			slices.Sort(times)
			t.Logf("ping is answered in %v (median) and %v at most, while %d of %d tasks ran", times[pings/2], times[pings-1], ran, tasks)
			if times[pings/2] > 5*time.Second {
				t.Errorf("ping is answered in %v", times[pings/2])
			}
		})
	}
}
