package lab

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// AddArgs are the arguments of add, on every side.
type AddArgs struct {
	X int `json:"x" task:"x"`
	Y int `json:"y" task:"y"`
}

// Task i of an order is add(i, 1).
type Task = task.Task[AddArgs, int]

// Add is what is called where nothing else is said.
var Add = task.Define[AddArgs, int]("bench.add")

// Dial connects a Gelery client to what an order names.
func Dial(ctx context.Context, o Order) (*task.Client, error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return task.Dial(ctx, task.Config{Broker: o.Broker, Backend: o.Backend, Queue: o.Queue, QueueType: o.QueueType, Logger: log})
}

// Work runs a worker as it comes, with Add and what more adds, until ctx is done.
func Work(ctx context.Context, o Order, more ...func(*worker.Mux)) error {
	client, err := Dial(ctx, o)
	if err != nil {
		return err
	}
	mux := worker.NewMux()
	worker.Handle(mux, Add, func(_ context.Context, a AddArgs) (int, error) { return a.X + a.Y, nil })
	for _, add := range more {
		add(mux)
	}
	w, err := worker.New(client, mux, worker.Config{Concurrency: o.Concurrency, TaskEvents: o.Events})
	if err != nil {
		return err
	}
	return errors.Join(w.Run(ctx), client.Close(context.WithoutCancel(ctx)))
}

// Worker is the side that runs Work and nothing else.
func Worker(ctx context.Context, o Order, say func(Report)) error {
	say(Report{Started: time.Now().UnixNano()})
	return Work(ctx, o)
}

// Enqueue returns the side that sends Tasks calls of one of the tasks, in batches or one by one, from each of Producers
// goroutines.
func Enqueue(tasks ...*Task) Side {
	return func(ctx context.Context, o Order, say func(Report)) error {
		client, err := Dial(ctx, o)
		if err != nil {
			return err
		}
		t := Add
		for _, other := range tasks {
			if other.Name() == o.Task {
				t = other
			}
		}
		begun := time.Now()
		if o.Batch > 1 {
			err = sendBatches(ctx, client, t, o)
		} else {
			err = Share(o, func(i int) error {
				_, err := t.Send(ctx, client, AddArgs{i, 1})
				return err
			})
		}
		if err != nil {
			return err
		}
		say(Report{Seconds: time.Since(begun).Seconds()})
		return client.Close(context.WithoutCancel(ctx)) // whoever has the report ends ctx
	}
}

func sendBatches(ctx context.Context, client *task.Client, t *Task, o Order) error {
	batches := o
	batches.Tasks = (o.Tasks + o.Batch - 1) / o.Batch
	return Share(batches, func(i int) error {
		calls := make([]task.Call, 0, o.Batch)
		for j := i * o.Batch; j < min((i+1)*o.Batch, o.Tasks); j++ {
			calls = append(calls, t.Call(AddArgs{j, 1}))
		}
		_, err := client.SendBatch(ctx, calls)
		return err
	})
}

// Latency sends at a steady rate and measures each call from before Send until its result has been pushed. A call that
// could not be sent at its time because the one before took long counts from the time it should have been sent.
func Latency(ctx context.Context, o Order, say func(Report)) error {
	client, err := Dial(ctx, o)
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
			r, err := Add.Send(ctx, client, AddArgs{i, 1})
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
	say(Report{Latencies: latencies, Seconds: time.Since(begun).Seconds()})
	return client.Close(context.WithoutCancel(ctx)) // whoever has the report ends ctx
}
