// Command revoke takes tasks back: one that waits never runs, one that runs hears of it by its context.
//
//	go run ./examples/revoke
//
// Python's app.control.revoke does the same to a Go worker, and client.Revoke to a Python one. On Redis the broker keeps
// what is revoked, so that a worker which is away learns of it; elsewhere Config.StateFile does for one worker.
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
	mail   = task.Define[task.NoArgs, string]("mail.send")
	render = task.Define[task.NoArgs, string]("video.render")
)

func main() {
	begun, told := make(chan struct{}), make(chan struct{})
	mux := worker.NewMux()
	worker.Handle(mux, mail, func(context.Context, task.NoArgs) (string, error) { return "sent", nil })
	worker.Handle(mux, render, func(ctx context.Context, _ task.NoArgs) (string, error) {
		close(begun)
		<-ctx.Done() // the work
		fmt.Println("render was told to end:", errors.Is(context.Cause(ctx), task.ErrRevoked))
		close(told)
		return "", context.Cause(ctx)
	})
	site.Run(mux, worker.Config{}, func(ctx context.Context, client *task.Client) error {
		later, err := mail.Send(ctx, client, task.NoArgs{}, task.Countdown(time.Hour))
		if err != nil {
			return err
		}
		if err := client.Revoke(ctx, []string{later.ID()}); err != nil {
			return err
		}
		_, err = later.Get(ctx)
		fmt.Println("the mail of in an hour is revoked:", errors.Is(err, task.ErrRevoked))

		running, err := render.Send(ctx, client, task.NoArgs{})
		if err != nil {
			return err
		}
		<-begun
		if err := client.Revoke(ctx, []string{running.ID()}, task.Terminate("SIGTERM")); err != nil {
			return err
		}
		_, err = running.Get(ctx) // the outcome does not wait for the task's code
		<-told
		fmt.Println("the rendering is revoked:", errors.Is(err, task.ErrRevoked))
		return nil
	})
}
