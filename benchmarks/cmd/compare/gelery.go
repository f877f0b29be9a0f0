package main

import (
	"context"
	"sync"
	"time"

	_ "github.com/gelery/gelery/backends/redis"
	"github.com/gelery/gelery/benchmarks/internal/lab"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/redis"
	"github.com/gelery/gelery/worker"
)

const geleryQueue = "bench"

var geleryHold = task.Define[lab.AddArgs, int]("bench.hold") // add, but not before it is let go

// released is the key whose list lets the held tasks go.
const released = "bench-release"

// geleryWorker runs a worker as it comes: late acknowledgement, leases, results stored and published.
func geleryWorker(ctx context.Context, o lab.Order, say func(lab.Report)) error {
	say(lab.Report{Started: time.Now().UnixNano()})
	letGo := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		if awaitRelease(ctx, o) == nil {
			close(letGo)
		}
	})
	defer watching.Wait()
	return lab.Work(ctx, o, func(mux *worker.Mux) {
		worker.Handle(mux, geleryHold, func(ctx context.Context, a lab.AddArgs) (int, error) {
			select {
			case <-letGo:
				return a.X + a.Y, nil
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
		})
	})
}
