package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/benchmarks/internal/lab"
)

// pollInterval is how often the end of a drain is looked for: the resolution of the figures, at a cost well below one per
// cent of what Redis does meanwhile, and the same for both sides.
const pollInterval = 5 * time.Millisecond

// system is one of the two that are compared: where its traces are in Redis.
type system struct {
	name string
	// pipelined is its way to send fast.
	pipelined lab.Order
	// queued counts the messages that wait.
	queued func(ctx context.Context, b *bench) (int64, error)
	// drained tells whether every task is finished: its result stored and its message gone.
	drained func(ctx context.Context, b *bench, tasks int) (bool, error)
	// results match the keys of the results, and sums reads some.
	results string
	sums    func(ctx context.Context, c *redis.Client, keys []string) ([]int, error)
}

var geleryKeys = system{
	name:      "gelery",
	pipelined: lab.Order{Batch: pipelineBatch},
	queued:    func(ctx context.Context, b *bench) (int64, error) { return b.redis.LLen(ctx, geleryQueue).Result() },
	results:   lab.GeleryResults,
	// A message is acknowledged after its result is stored: when nothing waits and nothing is unacked, all is there.
	drained: func(ctx context.Context, b *bench, _ int) (bool, error) {
		pipe := b.redis.TxPipeline()
		waiting, unacked := pipe.LLen(ctx, geleryQueue), pipe.HLen(ctx, "unacked")
		_, err := pipe.Exec(ctx)
		return waiting.Val() == 0 && unacked.Val() == 0, err
	},
	sums: lab.GelerySums,
}

var asynqKeys = system{
	name:      "asynq",
	pipelined: lab.Order{Producers: pipelineProducers},
	queued: func(ctx context.Context, b *bench) (int64, error) {
		return b.redis.LLen(ctx, "asynq:{"+asynqQueue+"}:pending").Result()
	},
	results: "asynq:{" + asynqQueue + "}:t:*",
	drained: func(ctx context.Context, b *bench, tasks int) (bool, error) {
		n, err := b.redis.ZCard(ctx, "asynq:{"+asynqQueue+"}:completed").Result()
		return n >= int64(tasks), err
	},
	sums: func(ctx context.Context, c *redis.Client, keys []string) ([]int, error) {
		pipe := c.Pipeline()
		for _, k := range keys {
			pipe.HMGet(ctx, k, "state", "result")
		}
		replies, err := pipe.Exec(ctx)
		if err != nil {
			return nil, err
		}
		sums := make([]int, len(keys))
		for i, r := range replies {
			fields := r.(interface{ Val() []any }).Val()
			text, _ := fields[1].(string)
			if sums[i], err = strconv.Atoi(text); err != nil || fields[0] != "completed" {
				return nil, fmt.Errorf("%s holds %v", keys[i], fields)
			}
		}
		return sums, nil
	},
}

// drain fills a queue, starts a worker on it and measures until all results are stored. The results are all read
// afterwards: every sum must be there exactly once.
func (b *bench) drain(ctx context.Context, s system, o lab.Order) (_ lab.Run, err error) {
	if err := b.fill(ctx, s, s.pipelined); err != nil {
		return lab.Run{}, err
	}
	o.Side = s.name + "-worker"
	worker, err := b.start(ctx, o)
	if err != nil {
		return lab.Run{}, err
	}
	defer func() { err = errors.Join(err, worker.Stop()) }()
	begun, err := worker.Next()
	if err != nil {
		return lab.Run{}, err
	}
	cost := lab.CostsOf(worker.Pid(), b.server.Pid())
	if err := b.awaitDrained(ctx, s, b.tasks); err != nil {
		return lab.Run{}, err
	}
	r := cost.Run(b.tasks, time.Since(time.Unix(0, begun.Started)))
	return r, b.verify(ctx, s)
}

// fill empties the server and has the tasks of an order sent.
func (b *bench) fill(ctx context.Context, s system, o lab.Order) error {
	o.Side, o.Tasks = s.name+"-enqueue", b.tasks
	if err := b.redis.FlushAll(ctx).Err(); err != nil {
		return err
	}
	if _, err := b.produce(ctx, o); err != nil {
		return err
	}
	queued, err := s.queued(ctx, b)
	if err == nil && queued != int64(o.Tasks) {
		err = fmt.Errorf("%s has %d tasks queued; expected %d", s.name, queued, o.Tasks)
	}
	return err
}

func (b *bench) awaitDrained(ctx context.Context, s system, tasks int) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		done, err := s.drained(ctx, b, tasks)
		if done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s has not drained its queue: %w", s.name, ctx.Err())
		}
	}
}

// verify reads all results.
func (b *bench) verify(ctx context.Context, s system) error {
	if err := lab.Verify(ctx, b.redis, s.results, b.tasks, s.sums); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// compareDrain runs the pairs at one concurrency.
func (b *bench) compareDrain(ctx context.Context, concurrency int) error {
	what := fmt.Sprintf("drain, concurrency %d", concurrency)
	p, err := b.pairsOf(what, func(s system) (lab.Run, error) { return b.drain(ctx, s, lab.Order{Concurrency: concurrency}) })
	if err == nil {
		b.require(p.Median() >= b.minDrain, "%s: median %.2f is below %.2f", what, p.Median(), b.minDrain)
	}
	return err
}

// compareEvents runs the pairs of drains with task events and without. Nobody listens: what a monitor costs is Redis's
// traffic to it.
func (b *bench) compareEvents(ctx context.Context, concurrency int) error {
	what := fmt.Sprintf("drain with events, concurrency %d", concurrency)
	c := lab.Comparison{What: what, Sides: [2]string{"events", "without"}, Costed: "process+redis", Tasks: b.tasks, Pairs: b.pairs, Out: os.Stdout}
	p, err := c.Run(func(side int) (lab.Run, error) {
		return b.drain(ctx, geleryKeys, lab.Order{Concurrency: concurrency, Events: side == 0})
	})
	if err == nil {
		b.require(p.Median() >= b.minEvents, "%s: median %.2f is below %.2f", what, p.Median(), b.minEvents)
	}
	return err
}

// pairsOf runs and prints the interleaved pairs of one measurement.
func (b *bench) pairsOf(what string, measure func(system) (lab.Run, error)) (lab.Pairs, error) {
	systems := [2]system{geleryKeys, asynqKeys}
	c := lab.Comparison{What: what, Sides: [2]string{"gelery", "asynq"}, Costed: "process+redis", Tasks: b.tasks, Pairs: b.pairs,
		Out: os.Stdout}
	return c.Run(func(side int) (lab.Run, error) { return measure(systems[side]) })
}
