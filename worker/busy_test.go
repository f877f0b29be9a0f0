package worker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// TestPingWhileBusy: a worker answers while tasks use up all processors in all of its slots, and more wait than it holds. How
// long that takes on a machine that has nothing else to do is measured by benchmarks/cmd/ping.
func TestPingWhileBusy(t *testing.T) {
	t.Parallel()
	for name, broker := range map[string]func(*testing.T) string{
		"redis":    func(t *testing.T) string { return testservice.Redis(t) },
		"rabbitmq": func(t *testing.T) string { return testservice.RabbitMQ(t).URL },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newBusySite(t, broker(t)).pings()
		})
	}
}

// busySite has a worker whose slots are full of tasks, and another, on the same broker, which has nothing to do.
type busySite struct {
	*site
	idle       *site
	answered   atomic.Int64  // pings; each task runs until there is one more
	short      atomic.Bool   // or, with this, for a millisecond
	began      chan struct{} // one for each task; more than a test runs
	sent, took int           // tasks, and those that are known to have begun
}

const busySlots = 4

func newBusySite(t *testing.T, url string) *busySite {
	b := &busySite{site: connectedSite(t, url), idle: connectedSite(t, url), began: make(chan struct{}, 100_000)}
	b.mux.Func("spin", func(ctx context.Context) {
		of, until := b.answered.Load(), time.Now().Add(time.Millisecond)
		b.began <- struct{}{}
		for b.answered.Load() == of && ctx.Err() == nil && (!b.short.Load() || time.Now().Before(until)) {
		}
	})
	b.start(Config{Concurrency: busySlots, Hostname: "busy@box"})
	b.idle.start(Config{Hostname: "idle@box", Queues: []string{"idle"}})
	t.Cleanup(func() { // before the stop: what waits runs then
		b.short.Store(true)
		b.answered.Add(1)
	})
	return b
}

// connectedSite has a client of its own, so that no two workers share a connection.
func connectedSite(t *testing.T, url string) *site {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client, err := task.Dial(ctx, task.Config{Broker: url, Backend: "memory://" + protocol.NewID(), IgnoreResult: true,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	return &site{T: t, client: client, mux: NewMux(), done: make(chan error, 1)}
}

// more sees to it that more tasks wait than the worker holds.
func (b *busySite) more() {
	b.Helper()
	const batch = 500
	if b.sent-b.took-len(b.began) > batch/2 {
		return
	}
	if _, err := b.client.SendBatch(b.context(), slices.Repeat([]task.Call{{Name: "spin"}}, batch)); err != nil {
		b.Fatal(err)
	}
	b.sent += batch
}

// ping returns how long the worker of a mailbox takes to answer.
func (m *mailbox) ping() time.Duration {
	m.Helper()
	r := m.request("ping", nil)
	r.Destination = []string{m.worker.Hostname()}
	ctx, cancel := context.WithTimeout(m.T.Context(), time.Minute)
	defer cancel()
	begun := time.Now()
	m.broadcast(r)
	if got := fmt.Sprint(m.answerWithin(ctx)); got != "map[ok:pong]" {
		m.Fatalf("%s answers %s", m.worker.Hostname(), got)
	}
	return time.Since(begun)
}

func (b *busySite) pings() {
	asking := connectedSite(b.T, b.client.Config().Broker)
	busy := (&site{T: b.T, client: asking.client, worker: b.worker}).mailbox()
	idle := (&site{T: b.T, client: asking.client, worker: b.idle.worker}).mailbox()

	// No slot gets free before the answer: whatever waits for one waits for ever.
	for range 10 {
		b.more()
		for range busySlots {
			await(b.T, b.began, "a task in each slot")
			b.took++
		}
		busy.ping()
		b.answered.Add(1)
	}

	// Tasks come, run and are acknowledged as fast as can be. Both workers are in this process, so the machine's load is the
	// same for both: what the busy one takes longer for is of its own making. One ping may be unlucky, half of them are not.
	const pairs, allowance = 30, 50 * time.Millisecond
	b.short.Store(true)
	var times [2][]time.Duration
	late := 0
	for range pairs {
		b.more()
		i, k := idle.ping(), busy.ping()
		times[0], times[1] = append(times[0], i), append(times[1], k)
		if k > 2*i+allowance {
			late++
		}
	}
	slices.Sort(times[0])
	slices.Sort(times[1])
	ran := b.took + len(b.began)
	b.Logf("%d tasks ran; ping was answered by the idle worker in %v (median) and %v at most, by the busy one in %v and %v",
		ran, times[0][pairs/2], times[0][pairs-1], times[1][pairs/2], times[1][pairs-1])
	if ran < pairs {
		b.Errorf("%d tasks ran: the worker was not busy", ran)
	}
	if late > pairs/2 {
		b.Errorf("%d of %d pings took the busy worker %v and twice as long as the idle one", late, pairs, allowance)
	}
}
