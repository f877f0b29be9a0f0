package main

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/hibiken/asynq"

	"github.com/gelery/gelery/benchmarks/internal/lab"
)

const (
	asynqTask  = "bench:add"
	asynqQueue = "default"
)

// asynqRedis gives asynq a connection for each task that runs and some for the rest, more than its default of ten for
// each core, so that nobody can say it had to wait for one.
func asynqRedis(o lab.Order) asynq.RedisClientOpt {
	return asynq.RedisClientOpt{Addr: o.Redis, PoolSize: max(10, o.Concurrency) + 10}
}

// asynqWorker runs asynq's server as it comes, with a handler that decodes JSON and stores its result.
func asynqWorker(ctx context.Context, o lab.Order, say func(lab.Report)) error {
	say(lab.Report{Started: time.Now().UnixNano()})
	server := asynq.NewServer(asynqRedis(o), asynq.Config{Concurrency: o.Concurrency, LogLevel: asynq.WarnLevel})
	mux := asynq.NewServeMux()
	mux.HandleFunc(asynqTask, func(_ context.Context, t *asynq.Task) error {
		var a lab.AddArgs
		if err := json.Unmarshal(t.Payload(), &a); err != nil {
			return err
		}
		_, err := t.ResultWriter().Write(strconv.AppendInt(nil, int64(a.X+a.Y), 10))
		return err
	})
	if err := server.Start(mux); err != nil {
		return err
	}
	<-ctx.Done()
	server.Shutdown()
	return nil
}

// asynqEnqueue sends Tasks calls whose results are kept, one by one from each of Producers goroutines.
func asynqEnqueue(ctx context.Context, o lab.Order, say func(lab.Report)) error {
	client := asynq.NewClient(asynqRedis(o))
	begun := time.Now()
	err := lab.Share(o, func(i int) error {
		payload, err := json.Marshal(lab.AddArgs{X: i, Y: 1})
		if err != nil {
			return err
		}
		_, err = client.EnqueueContext(ctx, asynq.NewTask(asynqTask, payload), asynq.Retention(time.Hour))
		return err
	})
	if err != nil {
		return err
	}
	say(lab.Report{Seconds: time.Since(begun).Seconds()})
	return client.Close()
}
