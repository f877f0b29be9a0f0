// Command beat sends tasks when they are due: one every second, and a workflow of two.
//
//	go run ./examples/beat
//
// The entries are the program's own; with a state file they would go on over a restart. A command line with beat, worker -B and
// schedule is cli.Main(mux, cli.Schedule(entries...)).
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gelery/gelery/examples/site"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

type waterArgs struct {
	Plant string `task:"plant"`
}

type noteArgs struct {
	Moisture int `task:"moisture"`
}

var (
	water    = task.Define[waterArgs, task.NoResult]("garden.water")
	moisture = task.Define[task.NoArgs, int]("garden.moisture")
	note     = task.Define[noteArgs, task.NoResult]("garden.note")
)

func main() {
	watered, noted := make(chan time.Time, 100), make(chan int, 100)
	mux := worker.NewMux()
	worker.Handle(mux, water, func(ctx context.Context, _ waterArgs) (task.NoResult, error) {
		info, _ := task.FromContext(ctx)
		moment, err := time.Parse(time.RFC3339, fmt.Sprint(info.CustomHeaders()[scheduler.MomentHeader]))
		watered <- moment
		return task.NoResult{}, err
	})
	worker.Handle(mux, moisture, func(context.Context, task.NoArgs) (int, error) { return 7, nil })
	worker.Handle(mux, note, func(_ context.Context, a noteArgs) (task.NoResult, error) {
		noted <- a.Moisture
		return task.NoResult{}, nil
	})

	site.Run(mux, worker.Config{}, func(ctx context.Context, client *task.Client) error {
		everySecond, err := scheduler.Every(time.Second)
		if err != nil {
			return err
		}
		store, err := scheduler.NewLocal(scheduler.LocalConfig{Entries: []*scheduler.Entry{
			{Name: "water the fern", Schedule: everySecond, Task: water.S(waterArgs{"fern"})},
			{Name: "watch the soil", Schedule: everySecond, Task: task.Chain(moisture.S(task.NoArgs{}), note.Rest())},
		}})
		if err != nil {
			return err
		}
		beat, err := scheduler.New(client, store, scheduler.Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		beating, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- beat.Run(beating) }()

		first, second := <-watered, <-watered
		fmt.Println("the fern was watered twice, for moments a second apart:", second.Sub(first) == time.Second)
		fmt.Println("the workflow noted", <-noted)
		stop()
		return errors.Join(<-ended, store.Close())
	})
}
