// Command time-limit runs tasks in child processes, which can be killed, with a soft and a hard time limit.
//
//	go run ./examples/time-limit
//
// A stock worker does the same with `gelery worker --pool process --soft-time-limit 60 --time-limit 75`. In the goroutine
// pool a task that heeds its context ends at its soft limit in the same way; one that does not is given up at the hard
// limit, but goes on running and keeps its slot, since nothing can kill a goroutine.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gelery/gelery/examples/site"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

var (
	polite   = task.Define[task.NoArgs, string]("jobs.polite", task.SoftTimeLimit(200*time.Millisecond), task.TimeLimit(10*time.Second))
	stubborn = task.Define[task.NoArgs, string]("jobs.stubborn", task.TimeLimit(500*time.Millisecond))
	quick    = task.Define[task.NoArgs, string]("jobs.quick")
)

func main() {
	mux := worker.NewMux()
	worker.Handle(mux, polite, func(ctx context.Context, _ task.NoArgs) (string, error) {
		<-ctx.Done() // the work, which ends when the context does
		if errors.Is(context.Cause(ctx), task.ErrSoftTimeLimit) {
			return "half of it is done, the rest is cleaned up", nil
		}
		return "", context.Cause(ctx)
	})
	worker.Handle(mux, stubborn, func(context.Context, task.NoArgs) (string, error) {
		select {} // never looks at its context: only a kill ends it
	})
	worker.Handle(mux, quick, func(context.Context, task.NoArgs) (string, error) { return "quick", nil })
	site.Run(mux, worker.Config{Pool: "process", Concurrency: 1}, func(ctx context.Context, client *task.Client) error {
		for _, job := range []*task.Task[task.NoArgs, string]{polite, stubborn, quick} {
			r, err := job.Send(ctx, client, task.NoArgs{})
			if err != nil {
				return err
			}
			text, err := r.Get(ctx)
			switch {
			case errors.Is(err, task.ErrTimeLimit):
				fmt.Println(job.Name(), "was killed at its time limit")
			case err != nil:
				return err
			default:
				fmt.Println(job.Name(), "returned:", text)
			}
		}
		return nil
	})
}
