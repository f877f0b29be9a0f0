// Command processes measures the process pool: no-op tasks on Redis, run by a worker with child processes, from the
// worker's start until every result is stored and every message acknowledged, the start of the children included. Beside
// it the goroutine pool with as many slots.
//
//	go run ./cmd/processes
//	go run ./cmd/processes -children 4 -tasks 50000 -rounds 5
//
// It starts a redis-server of its own. Exit codes: 0 the bound holds, 1 it does not or something is missing.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	_ "github.com/gelery/gelery/backends/redis"
	"github.com/gelery/gelery/internal/redisserver"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/redis"
	"github.com/gelery/gelery/worker"
)

var noop = task.Define[task.NoArgs, task.NoResult]("bench.noop")

const batch = 100

var prefetch int

func main() {
	children := flag.Int("children", 2, "child processes, and slots of the goroutine pool")
	tasks := flag.Int("tasks", 30_000, "tasks of a round")
	flag.IntVar(&prefetch, "prefetch", 0, "messages held for each running task; 0: the default")
	rounds := flag.Int("rounds", 3, "rounds; the median counts")
	least := flag.Float64("min", 5_000, "tasks/s that the process pool must reach")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if worker.IsChild() {
		// The broker is never asked: the tasks send nothing.
		if _, err := drain(ctx, "redis://127.0.0.1:1", "", 0, 0); err != nil {
			fail(err)
		}
		return
	}
	server, err := redisserver.Start(ctx)
	if err != nil {
		fail(err)
	}
	rates := map[string][]float64{}
	for range *rounds {
		for _, pool := range []string{worker.PoolProcess, worker.PoolGoroutine} {
			var rate float64
			if rate, err = drain(ctx, server.URL, pool, *children, *tasks); err != nil {
				_ = server.Stop()
				fail(err)
			}
			rates[pool] = append(rates[pool], rate)
			fmt.Printf("%-10s %d at once  %8.0f tasks/s\n", pool, *children, rate)
		}
	}
	if err := server.Stop(); err != nil {
		fail(err)
	}
	slices.Sort(rates[worker.PoolProcess])
	median := rates[worker.PoolProcess][*rounds/2]
	fmt.Printf("process pool with %d children, median of %d: %.0f tasks/s; at least %.0f are asked for\n", *children, *rounds, median, *least)
	if median < *least {
		os.Exit(1)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "processes:", err)
	os.Exit(1)
}

// drain fills the queue and lets a worker empty it. In a child it is the worker's other half.
func drain(ctx context.Context, url, pool string, children, tasks int) (rate float64, err error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	client, err := task.Dial(ctx, task.Config{Broker: url, Backend: url, Logger: log})
	if err != nil {
		return 0, err
	}
	defer func() { _ = client.Close(ctx) }()
	for sent := 0; sent < tasks; sent += batch {
		if _, err := noop.SendBatch(ctx, client, make([]task.NoArgs, min(batch, tasks-sent))); err != nil {
			return 0, err
		}
	}
	mux := worker.NewMux()
	worker.Handle(mux, noop, func(context.Context, task.NoArgs) (task.NoResult, error) { return task.NoResult{}, nil })
	w, err := worker.New(client, mux, worker.Config{Pool: pool, Concurrency: children, PrefetchMultiplier: prefetch, Logger: log})
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	running, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for tasks > 0 && w.Stats().Succeeded < int64(tasks) && ctx.Err() == nil {
			<-tick.C
		}
		stop()
	}()
	if err := w.Run(running); err != nil {
		return 0, err
	}
	if done := w.Stats().Succeeded; done != int64(tasks) {
		return 0, fmt.Errorf("%d of %d tasks succeeded", done, tasks)
	}
	return float64(tasks) / time.Since(begun).Seconds(), nil
}
