//go:build unix

package worker

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/rabbitmq"
	_ "github.com/gelery/gelery/transport/redis"
)

// TestLimitedHoldUpNobody has a thousand tasks of a limited task before, and a hundred behind, others on the same queue.
// Celery would run these after some hours.
func TestLimitedHoldUpNobody(t *testing.T) {
	t.Parallel()
	for name, broker := range map[string]func() string{
		"memory":   func() string { return "memory://" + protocol.NewID() },
		"redis":    func() string { return testservice.Redis(t) },
		"rabbitmq": func() string { return testservice.RabbitMQ(t).URL },
	} {
		for limit, option := range map[string]task.DefineOption{"rate": task.RateLimit("6/m"), "concurrency": task.Concurrency(1)} {
			t.Run(name+"/"+limit, func(t *testing.T) {
				t.Parallel()
				limitedHoldUpNobody(t, broker(), option)
			})
		}
	}
}

func limitedHoldUpNobody(t *testing.T, broker string, limit task.DefineOption) {
	const before, behind, probes = 1000, 100, 20
	dialing, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client, err := task.Dial(dialing, task.Config{Broker: broker, Backend: "memory://" + protocol.NewID(), IgnoreResult: true,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	s := &site{T: t, client: client, mux: NewMux(), done: make(chan error, 1)}
	var limited runs
	limited.task(s, "limited", time.Hour, limit)
	ran := make(chan time.Time, probes)
	s.mux.Func("free", func(context.Context) error { ran <- time.Now(); return nil })
	sendLimited := func(n int) {
		calls := slices.Repeat([]task.Call{{Name: "limited", Args: []any{0}}}, n)
		if _, err := client.SendBatch(s.context(), calls); err != nil {
			t.Fatal(err)
		}
	}
	sendLimited(before)
	s.send("free")
	started := time.Now()
	s.start(Config{Concurrency: 10, PrefetchMultiplier: 1, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	var first time.Duration
	select {
	case at := <-ran:
		first = at.Sub(started)
	case <-time.After(time.Minute): // a thousand messages are fetched before it, a few at a time; under the race detector that is seconds
		t.Fatal("the task behind the limited ones did not run")
	}
	sendLimited(behind)
	took := make([]time.Duration, probes)
	for i := range took {
		sent := time.Now()
		s.send("free")
		took[i] = s.await(ran).Sub(sent)
	}
	slices.Sort(took)
	t.Logf("behind %d limited ones after %v; then median %v, longest %v", before, first, took[probes/2], took[probes-1])
	if took[probes/2] > time.Second { // mostly milliseconds; a busy machine may need more
		t.Errorf("others wait %v for limited tasks", took[probes/2])
	}
	if n := limited.count(); n == 0 || n > 9 {
		t.Errorf("%d limited tasks ran", n)
	}
	s.stop()
	s.worker.Terminate()
	if err := s.end(); err == nil {
		t.Error("it stopped warm, with tasks of an hour")
	}
}
