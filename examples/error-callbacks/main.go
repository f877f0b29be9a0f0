// Command error-callbacks runs a task when another one has failed.
//
//	go run ./examples/error-callbacks
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/gelery/gelery/examples/site"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

type alertArgs struct {
	TaskID string `task:"task_id"` // of the task that failed
}

var (
	backup = task.Define[task.NoArgs, task.NoResult]("nightly.backup")
	report = task.Define[task.NoArgs, task.NoResult]("nightly.report")
	alert  = task.Define[alertArgs, task.NoResult]("nightly.alert")
)

func main() {
	alerted := make(chan struct{})
	mux := worker.NewMux()
	worker.Handle(mux, backup, func(context.Context, task.NoArgs) (none task.NoResult, err error) {
		return none, errors.New("the disk is full")
	})
	worker.Handle(mux, report, func(context.Context, task.NoArgs) (none task.NoResult, err error) {
		fmt.Println("this does not run")
		return none, nil
	})
	worker.Handle(mux, alert, func(ctx context.Context, a alertArgs) (none task.NoResult, err error) {
		info, _ := task.FromContext(ctx)
		why, err := info.Client.Result(a.TaskID).Info(ctx) // the result of the failed task is stored by now
		if err != nil {
			return none, err
		}
		fmt.Println("alert:", why)
		close(alerted)
		return none, nil
	})
	site.Run(mux, worker.Config{}, func(ctx context.Context, client *task.Client) error {
		// An error callback of a chain is one of each of its steps.
		night := task.Chain(backup.S(task.NoArgs{}), report.S(task.NoArgs{}).Immutable()).LinkError(alert.Rest())
		if _, err := client.Apply(ctx, night); err != nil {
			return err
		}
		select {
		case <-alerted:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}
