// Package site is what the examples have in common: a broker in memory, a worker on it and a client, in one process. A
// program of yours has two processes and a real broker; examples/quickstart shows that.
package site

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"time"

	_ "github.com/gelery/gelery/backends/memory"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/memory"
	"github.com/gelery/gelery/worker"
)

// Run runs a worker with the tasks of the mux, lets f call them, and stops the worker. An error ends the program.
func Run(mux *worker.Mux, c worker.Config, f func(ctx context.Context, client *task.Client) error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, mux, c, f); err != nil {
		log.Fatal(err) //nolint:gocritic // the deferred cancel frees what the end of the process frees
	}
}

func run(ctx context.Context, mux *worker.Mux, c worker.Config, f func(context.Context, *task.Client) error) error {
	client, err := task.Dial(ctx, task.Config{Broker: "memory://example", Backend: "memory://example",
		Logger: slog.New(slog.DiscardHandler), Middleware: mux.PublishMiddleware()})
	if err != nil {
		return err
	}
	w, err := worker.New(client, mux, c)
	if err != nil {
		return err
	}
	if worker.IsChild() { // the same program, started by a worker with a process pool
		return w.Run(ctx)
	}
	working, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(working) }()
	err = f(ctx, client)
	stop()
	return errors.Join(err, <-ended, client.Close(ctx))
}
