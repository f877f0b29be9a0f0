// Command graceful-stop stops a worker while it works: what runs ends, what has not begun goes back to its queue, and
// another worker does it. Nothing is lost and nothing runs twice.
//
//	go run ./examples/graceful-stop
//
// cli.Main does this for SIGTERM and SIGINT; a program with a main of its own ends the context of Run, as here. StopTimeout
// bounds the wait, and should be shorter than what comes after it: Kubernetes kills 30 seconds after SIGTERM.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	_ "github.com/gelery/gelery/backends/memory"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/memory"
	"github.com/gelery/gelery/worker"
)

type pageArgs struct {
	Page int `task:"page"`
}

var printPage = task.Define[pageArgs, string]("office.print")

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Panic(err)
	}
}

func run(ctx context.Context) error {
	client, err := task.Dial(ctx, task.Config{Broker: "memory://office", Backend: "memory://office", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	begun := make(chan int, 3)
	start := func(name string) (stop func() error, err error) {
		mux := worker.NewMux()
		worker.Handle(mux, printPage, func(_ context.Context, a pageArgs) (string, error) {
			begun <- a.Page
			<-time.After(300 * time.Millisecond) // the work
			return fmt.Sprintf("page %d printed by %s", a.Page, name), nil
		})
		w, err := worker.New(client, mux, worker.Config{Concurrency: 1, StopTimeout: 25 * time.Second})
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		return func() error { cancel(); return <-ended }, nil
	}

	stopFirst, err := start("the first worker")
	if err != nil {
		return err
	}
	pages, err := printPage.SendBatch(ctx, client, []pageArgs{{1}, {2}, {3}})
	if err != nil {
		return err
	}
	fmt.Println("page", <-begun, "has begun, the worker is stopped")
	if err := stopFirst(); err != nil { // returns when page 1 is printed, and pages 2 and 3 are back in the queue
		return err
	}
	stopSecond, err := start("the second worker")
	if err != nil {
		return err
	}
	for _, p := range pages {
		text, err := p.Get(ctx)
		if err != nil {
			return err
		}
		fmt.Println(text)
	}
	return stopSecond()
}
