// Command retry runs tasks that fail and are tried again: by a policy, and by what the task returns.
//
//	go run ./examples/retry
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

var errBusy = errors.New("the bank is busy")

type chargeArgs struct {
	Cents int `task:"cents"`
}

// charge is tried again by its policy, as Celery does it with autoretry_for: when it returns errBusy, three times at most.
// With Backoff: time.Second the delays would grow: 1, 2, 4 seconds.
var charge = task.Define[chargeArgs, string]("shop.charge",
	task.RetryPolicy{On: []error{errBusy}, Delay: 100 * time.Millisecond, MaxRetries: 3})

// ship decides by itself, as Celery does it with self.retry.
var ship = task.Define[task.NoArgs, string]("shop.ship", task.MaxRetries(1))

func main() {
	mux := worker.NewMux()
	worker.Handle(mux, charge, func(ctx context.Context, a chargeArgs) (string, error) {
		info, _ := task.FromContext(ctx)
		fmt.Println("charge, attempt", info.Retries+1)
		if info.Retries < 2 {
			return "", errBusy
		}
		return fmt.Sprintf("charged %d cents", a.Cents), nil
	})
	worker.Handle(mux, ship, func(ctx context.Context, _ task.NoArgs) (string, error) {
		info, _ := task.FromContext(ctx)
		fmt.Println("ship, attempt", info.Retries+1)
		return "", task.Retry(errors.New("no van"), task.Countdown(100*time.Millisecond))
	})
	site.Run(mux, worker.Config{}, func(ctx context.Context, client *task.Client) error {
		charged, err := charge.Send(ctx, client, chargeArgs{Cents: 995})
		if err != nil {
			return err
		}
		text, err := charged.Get(ctx) // waits for the attempt that is the last
		if err != nil {
			return err
		}
		fmt.Println(text)
		shipped, err := ship.Send(ctx, client, task.NoArgs{})
		if err != nil {
			return err
		}
		_, err = shipped.Get(ctx)
		fmt.Println("given up:", err)
		return nil
	})
}
