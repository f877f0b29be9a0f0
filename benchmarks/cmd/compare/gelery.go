package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	_ "github.com/gelery/gelery/backends/redis"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/redis"
	"github.com/gelery/gelery/worker"
)

const geleryQueue = "bench"

// addArgs are the arguments of add on both sides.
type addArgs struct {
	X int `json:"x" task:"x"`
	Y int `json:"y" task:"y"`
}

var (
	geleryAdd  = task.Define[addArgs, int]("bench.add")
	geleryHold = task.Define[addArgs, int]("bench.hold") // add, but not before it is let go
)

// released is the key whose list lets the held tasks go.
const released = "bench-release"

func dialGelery(ctx context.Context, o order) (*task.Client, error) {
	url := "redis://" + o.Redis + "/0"
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return task.Dial(ctx, task.Config{Broker: url, Backend: url, Queue: geleryQueue, Logger: log})
}

// geleryWorker runs a worker as it comes: late acknowledgement, leases, results stored and published.
func geleryWorker(ctx context.Context, o order, say func(report)) error {
	say(report{Started: time.Now().UnixNano()})
	client, err := dialGelery(ctx, o)
	if err != nil {
		return err
	}
	mux := worker.NewMux()
	worker.Handle(mux, geleryAdd, func(_ context.Context, a addArgs) (int, error) { return a.X + a.Y, nil })
	letGo := make(chan struct{})
	worker.Handle(mux, geleryHold, func(ctx context.Context, a addArgs) (int, error) {
		select {
		case <-letGo:
			return a.X + a.Y, nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	})
	var watching sync.WaitGroup
	watching.Go(func() {
		if awaitRelease(ctx, o) == nil {
			close(letGo)
		}
	})
	defer watching.Wait()
	w, err := worker.New(client, mux, worker.Config{Concurrency: o.Concurrency})
	if err != nil {
		return err
	}
	return errors.Join(w.Run(ctx), client.Close(context.WithoutCancel(ctx)))
}

// geleryEnqueue sends Tasks calls, in batches or one by one from each of Producers goroutines.
func geleryEnqueue(ctx context.Context, o order, say func(report)) error {
	client, err := dialGelery(ctx, o)
	if err != nil {
		return err
	}
	t := geleryAdd
	if o.Task == geleryHold.Name() {
		t = geleryHold
	}
	begun := time.Now()
	if o.Batch > 1 {
		err = sendBatches(ctx, client, t, o)
	} else {
		err = shared(o, func(i int) error {
			_, err := t.Send(ctx, client, addArgs{i, 1})
			return err
		})
	}
	if err != nil {
		return err
	}
	say(report{Seconds: time.Since(begun).Seconds()})
	return client.Close(ctx)
}

func sendBatches(ctx context.Context, client *task.Client, t *task.Task[addArgs, int], o order) error {
	calls := make([]task.Call, 0, o.Batch)
	for i := 0; i < o.Tasks; i += len(calls) {
		calls = calls[:0]
		for j := i; j < min(i+o.Batch, o.Tasks); j++ {
			calls = append(calls, t.Call(addArgs{j, 1}))
		}
		if _, err := client.SendBatch(ctx, calls); err != nil {
			return err
		}
	}
	return nil
}

// geleryLatency sends at a steady rate and measures each call from before Send until its result has been pushed. A call
// that could not be sent at its time because the one before took long counts from the time it should have been sent.
func geleryLatency(ctx context.Context, o order, say func(report)) error {
	client, err := dialGelery(ctx, o)
	if err != nil {
		return err
	}
	latencies := make([]time.Duration, o.Tasks)
	errs := make([]error, o.Tasks)
	var waiting sync.WaitGroup
	interval := time.Second / time.Duration(o.Rate)
	begun := time.Now()
	for i := range o.Tasks {
		due := begun.Add(time.Duration(i) * interval)
		timer := time.NewTimer(time.Until(due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		waiting.Go(func() {
			r, err := geleryAdd.Send(ctx, client, addArgs{i, 1})
			if err != nil {
				errs[i] = err
				return
			}
			sum, err := r.Get(ctx)
			latencies[i] = time.Since(due)
			if err == nil && sum != i+1 {
				err = errors.New("wrong sum")
			}
			errs[i] = err
		})
	}
	waiting.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	say(report{Latencies: latencies, Seconds: time.Since(begun).Seconds()})
	return client.Close(ctx)
}
