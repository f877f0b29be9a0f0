// Command delay sends tasks that are not to run at once: after a time, at a time, and not after a time.
//
//	go run ./examples/delay
//
// On Redis and RabbitMQ the broker keeps what is not due; a worker needs no memory for it.
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

type remindArgs struct {
	Who string `task:"who"`
}

var remind = task.Define[remindArgs, time.Time]("calendar.remind")

func main() {
	mux := worker.NewMux()
	worker.Handle(mux, remind, func(context.Context, remindArgs) (time.Time, error) { return time.Now(), nil })
	site.Run(mux, worker.Config{}, func(ctx context.Context, client *task.Client) error {
		begun := time.Now()
		soon, err := remind.Send(ctx, client, remindArgs{"Ada"}, task.Countdown(time.Second))
		if err != nil {
			return err
		}
		at := begun.Add(1500 * time.Millisecond)
		later, err := remind.Send(ctx, client, remindArgs{"Grace"}, task.ETA(at))
		if err != nil {
			return err
		}
		stale, err := remind.Send(ctx, client, remindArgs{"Edsger"}, task.Countdown(time.Second), task.Expires(500*time.Millisecond))
		if err != nil {
			return err
		}
		ran, err := soon.Get(ctx)
		if err != nil {
			return err
		}
		fmt.Println("Ada was reminded a second later:", ran.Sub(begun) >= time.Second)
		if ran, err = later.Get(ctx); err != nil {
			return err
		}
		fmt.Println("Grace was reminded at her time:", !ran.Before(at.Truncate(time.Microsecond)))
		_, err = stale.Get(ctx)
		fmt.Println("Edsger's reminder had expired before:", errors.Is(err, task.ErrRevoked))
		return nil
	})
}
