package worker

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"testing"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// BenchmarkRun is what a slot does for one task that does nothing, up to its outcome: no broker, no backend's work.
func BenchmarkRun(b *testing.B) {
	for _, slots := range []int{1, 100} {
		b.Run(strconv.Itoa(slots), func(b *testing.B) {
			place := "memory://" + protocol.NewID()
			client, err := task.Dial(b.Context(), task.Config{Broker: place, Backend: place, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = client.Close(context.Background()) }()
			mux := NewMux()
			mux.Func("noop", func(context.Context) error { return nil })
			w, err := New(client, mux, Config{Concurrency: slots})
			if err != nil {
				b.Fatal(err)
			}
			j := &job{request: &protocol.Request{}, delivery: &transport.Delivery{Queue: "celery"}, task: w.tasks["noop"]}
			j.request.Task, j.request.ID = "noop", protocol.NewID()
			var running sync.WaitGroup
			for range slots {
				running.Go(func() { w.slot(b.Context()) })
			}
			running.Go(func() {
				for range b.N {
					<-w.outcomes
				}
			})
			b.ReportAllocs()
			for range b.N {
				w.enqueue(b.Context(), j)
			}
			close(w.ready)
			running.Wait()
			w.runners.close()
		})
	}
}
