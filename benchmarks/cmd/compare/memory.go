package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/benchmarks/internal/lab"
)

const (
	queuedTasks = 100_000
	heldTasks   = 100 // slots of the worker whose memory is measured
)

// awaitRelease waits until measureMemory lets the held tasks go.
func awaitRelease(ctx context.Context, o lab.Order) error {
	c := redis.NewClient(&redis.Options{Addr: o.Redis, PoolSize: 1, ReadTimeout: -1})
	defer func() { _ = c.Close() }()
	// A cancelled context does not interrupt a read: closing the connection does.
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	return c.BLMove(ctx, released, released, "RIGHT", "RIGHT", 0).Err()
}

// measureMemory reads the resident memory of a worker: idle, with 100,000 tasks waiting behind tasks that do not end,
// and when it has done them all.
func (b *bench) measureMemory(ctx context.Context) (err error) {
	if err := b.redis.FlushAll(ctx).Err(); err != nil {
		return err
	}
	worker, err := b.start(ctx, lab.Order{Side: "gelery-worker", Concurrency: heldTasks})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, worker.Stop()) }()
	if _, err := worker.Next(); err != nil {
		return err
	}
	// One task through the whole machine: from then on the worker is as it will be.
	one := lab.Order{Side: "gelery-enqueue", Tasks: 1}
	if _, err := b.produce(ctx, one); err != nil {
		return err
	}
	if err := lab.Until(ctx, pollInterval, func() (bool, error) { return geleryKeys.drained(ctx, b, 1) }); err != nil {
		return err
	}
	idle, err := lab.Resident(worker.Pid())
	if err != nil {
		return err
	}
	held := lab.Order{Side: "gelery-enqueue", Tasks: queuedTasks, Batch: pipelineBatch, Task: geleryHold.Name()}
	if _, err := b.produce(ctx, held); err != nil {
		return err
	}
	if err := lab.Until(ctx, pollInterval, func() (bool, error) {
		n, err := b.redis.HLen(ctx, "unacked").Result()
		return n >= heldTasks, err
	}); err != nil {
		return err
	}
	unacked, waiting := b.redis.HLen(ctx, "unacked").Val(), b.redis.LLen(ctx, geleryQueue).Val()
	queued, err := lab.Resident(worker.Pid())
	if err != nil {
		return err
	}
	if err := b.redis.LPush(ctx, released, "go").Err(); err != nil {
		return err
	}
	if err := b.awaitDrained(ctx, geleryKeys, queuedTasks); err != nil {
		return err
	}
	after, err := lab.Resident(worker.Pid())
	if err != nil {
		return err
	}
	fmt.Printf("\nmemory of a worker with %d slots (VmRSS): idle %.1f MiB; with %d tasks held and %d waiting %.1f MiB (%+.1f); "+
		"after all of them %.1f MiB (%+.1f)\n", heldTasks, idle, unacked, waiting, queued, queued-idle, after, after-idle)
	b.require(idle < float64(b.maxIdle), "memory: idle worker has %.1f MiB, not below %d", idle, b.maxIdle)
	b.require(queued-idle <= float64(b.maxGrowth), "memory: queued tasks add %.1f MiB, more than %d", queued-idle, b.maxGrowth)
	return nil
}
