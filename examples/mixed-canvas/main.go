// Command mixed-canvas runs a workflow that a Go worker and a Python worker share: Go reads the ratings, a Python task, the
// body of the chord, makes their average, and Go words it.
//
//	cd examples/mixed-canvas
//	celery -A tasks -b redis://localhost:6379/0 --result-backend redis://localhost:6379/1 worker -Q python &
//	go run . redis://localhost:6379/0 redis://localhost:6379/1
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	_ "github.com/gelery/gelery/backends/redis"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/redis"
	"github.com/gelery/gelery/worker"
)

type ratingArgs struct {
	Shop string `task:"shop"`
}

type wordsArgs struct {
	Average float64 `task:"average"`
}

var (
	rating = task.Define[ratingArgs, int]("shop.rating")
	words  = task.Define[wordsArgs, string]("shop.words")
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: mixed-canvas BROKER-URL BACKEND-URL")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := task.Dial(ctx, task.Config{Broker: args[0], Backend: args[1], Queue: "go"})
	if err != nil {
		return err
	}
	mux := worker.NewMux()
	worker.Handle(mux, rating, func(_ context.Context, a ratingArgs) (int, error) { return len(a.Shop), nil })
	worker.Handle(mux, words, func(_ context.Context, a wordsArgs) (string, error) {
		return fmt.Sprintf("rated %.1f on average", a.Average), nil
	})
	w, err := worker.New(client, mux, worker.Config{})
	if err != nil {
		return errors.Join(err, client.Close(ctx))
	}
	working, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(working) }()
	err = ask(ctx, client)
	stop()
	return errors.Join(err, <-ended, client.Close(ctx))
}

func ask(ctx context.Context, client *task.Client) error {
	result, err := client.Apply(ctx, task.Chain(
		task.Group(rating.S(ratingArgs{"tea"}), rating.S(ratingArgs{"cakes"}), rating.S(ratingArgs{"jams"})),
		task.S("shop.average").With(task.Queue("python")),
		words.Rest().With(task.Queue("go")), // the Python worker sends it, whose default queue is another
	))
	if err != nil {
		return err
	}
	text, err := result.Get(ctx)
	if err != nil {
		return err
	}
	fmt.Println(text)
	return nil
}
