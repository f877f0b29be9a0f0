//go:build unix

package faults

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// deadlyBackend is the result backend of a worker that kills itself.
type deadlyBackend struct {
	backends.Backend
	backends.ChordCounter
	backends.Claimer
	*deadly
}

func (b *deadlyBackend) Store(ctx context.Context, batch []*protocol.ResultMeta) error {
	b.come(beforeStore)
	return b.Backend.Store(ctx, batch)
}

func (b *deadlyBackend) StartChords(ctx context.Context, chords []backends.ChordSize) error {
	b.come(beforeAnnounce)
	return b.ChordCounter.StartChords(ctx, chords)
}

func (b *deadlyBackend) CountParts(ctx context.Context, parts []backends.ChordPart) ([]backends.ChordState, error) {
	b.come(beforeCount)
	states, err := b.ChordCounter.CountParts(ctx, parts)
	b.come(afterCount)
	return states, err
}

// Close is the backend's.
func (b *deadlyBackend) Close() error { return b.Backend.Close() }

// TestF04WorkflowKillPoints has workers kill themselves at each step with which a workflow goes on. The workflow is a
// task, two parts of a chord, its body, and a task after it. None stops half way, and no body is started twice.
func TestF04WorkflowKillPoints(t *testing.T) {
	t.Parallel()
	points := []struct {
		point  killPoint
		passes int  // in one workflow
		brief  bool // also in the short form on RabbitMQ
	}{
		{beforeStore, 5, false}, {beforeAnnounce, 1, false}, {beforeCount, 2, false}, {afterCount, 2, false},
		{beforePublish, 3, false}, {afterPublish, 3, false}, {beforeBody, 1, true}, {afterBody, 1, true}, {beforeSettle, 5, false},
	}
	for _, kind := range form([]string{"redis", "classic"}, []string{"redis", "classic", "quorum"}) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var server *testservice.RabbitMQServer
			if kind != "redis" {
				server = testservice.RabbitMQ(t)
			}
			for i, p := range points {
				if kind != "redis" && !p.brief && !long() {
					continue
				}
				t.Run(string(p.point), func(t *testing.T) {
					t.Parallel()
					s := onRedis(t, testservice.Redis(t))
					if server != nil {
						s = workflowsOnRabbitMQ(t, server, fmt.Sprint("workflow", i), kind, s.setup.Backend)
					}
					killedInWorkflows(t, s, p.point, p.passes)
				})
			}
		})
	}
}

// workflowsOnRabbitMQ is a scene on RabbitMQ with results in Redis.
func workflowsOnRabbitMQ(t *testing.T, server *testservice.RabbitMQServer, queue, kind, backend string) *scene {
	t.Helper()
	s := onRabbitMQ(t, server, server.URL, queue, kind)
	s.setup.Backend = backend
	c, err := task.Dial(deadlineOf(t, 30*time.Second), task.Config{Broker: server.URL, Backend: backend, Queue: queue, QueueType: kind,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = c.Close(ctx)
	})
	s.client = c
	return s
}

func killedInWorkflows(t *testing.T, s *scene, point killPoint, passes int) {
	s.setup.Slots, s.setup.Prefetch, s.setup.MaxDeliveries = 1, 1, -1
	kills := form(2, 20)
	var all []*task.Result[any]
	bodies := map[string]bool{}
	for i := range kills {
		r := s.apply(bodies)
		all = append(all, r)
		w := s.worker(func(told *setup) { told.Kill, told.KillAt = point, 1+i%passes })
		if err := w.wait(2 * recovery); err == nil || w.cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("the worker did not kill itself: %v: %s", err, w.log)
		}
	}
	heir := s.worker()
	start := time.Now()
	for _, r := range all {
		if v, err := r.Get(deadlineOf(t, 3*recovery)); err != nil {
			t.Fatalf("workflow %s: %v, %v", r.ID(), v, err)
		}
	}
	took := time.Since(start)
	s.settled(2 * recovery)
	stopped(t, heir)
	// A body whose own worker is killed runs again, like any task; what must not be is a second message that starts it.
	starts := s.ledger.first().Counts(s)
	for id := range bodies {
		if starts[id] > 1 {
			t.Errorf("the body %s was started by %d messages", id, starts[id])
		}
	}
	// A message that comes again may make the one after it come again, and so on to the end of the workflow.
	s.account(outcome{what: "worker of workflows killed " + string(point), faults: kills, extra: 5 * kills, recovery: took, limit: recovery})
}

// apply sends a workflow whose tasks note their runs.
func (s *scene) apply(bodies map[string]bool) *task.Result[any] {
	s.Helper()
	step := task.S(walk.Name())
	r, err := s.client.Apply(deadlineOf(s.TB, patient), task.Chain(step, task.Group(step, step), step, step))
	if err != nil {
		s.Fatal(err)
	}
	for t := new(r.Tuple()); t != nil; t = t.Parent {
		if t.Children == nil {
			s.record(nil, t.ID)
		}
		if t.Parent != nil && t.Parent.Children != nil {
			bodies[t.ID] = true
		}
		for _, part := range t.Children {
			s.record(nil, part.ID)
		}
	}
	return r
}
