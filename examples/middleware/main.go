// Command middleware follows tasks on their way: a middleware where they are sent, one where they run, hooks of the worker
// and a handler of one task.
//
//	go run ./examples/middleware
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/gelery/gelery/examples/site"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

type userArgs struct {
	User string `task:"user"`
}

// greet has a handler of its own, as a Celery task has on_failure.
var greet = task.Define[userArgs, string]("shop.greet",
	task.OnFailure(func(_ context.Context, err error) { fmt.Println("on failure:", err) }))

// sign is for the side that sends: each call gets a header.
func sign(next task.Publish) task.Publish {
	return func(ctx context.Context, calls []*task.Publishing) error {
		for _, call := range calls {
			if err := call.SetHeader("tenant", "acme"); err != nil {
				return err
			}
			fmt.Println("sending", call.Request.Task)
		}
		return next(ctx, calls)
	}
}

// check is for the side that runs: it reads the header and may keep the task from running.
func check(next task.Handler) task.Handler {
	return func(ctx context.Context, r *protocol.Request) (any, error) {
		info, _ := task.FromContext(ctx)
		if tenant := info.Header("tenant"); string(tenant) != `"acme"` {
			return nil, fmt.Errorf("nobody knows the tenant %s", tenant)
		}
		fmt.Println("running", r.Task)
		return next(ctx, r)
	}
}

func main() {
	mux := worker.NewMux()
	mux.UsePublish(sign)
	mux.Use(check)
	mux.Hook(worker.Hooks{
		Succeeded: func(_ context.Context, e worker.TaskSucceeded) { fmt.Println("succeeded:", e.Result) },
		Failed:    func(_ context.Context, e worker.TaskFailed) { fmt.Println("failed:", e.Exception) },
	})
	worker.Handle(mux, greet, func(_ context.Context, a userArgs) (string, error) {
		if a.User == "" {
			return "", errors.New("there is nobody to greet")
		}
		return "hello " + a.User, nil
	})
	site.Run(mux, worker.Config{Concurrency: 1}, func(ctx context.Context, client *task.Client) error {
		for _, user := range []string{"Ada", ""} {
			greeted, err := greet.Send(ctx, client, userArgs{user})
			if err != nil {
				return err
			}
			var failed *task.Error // that it fails is part of the example
			if _, err := greeted.Get(ctx); err != nil && !errors.As(err, &failed) {
				return err
			}
		}
		return nil
	})
}
