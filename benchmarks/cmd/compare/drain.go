package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// pollInterval is how often the end of a drain is looked for: the resolution of the figures, at a cost well below one per
// cent of what Redis does meanwhile, and the same for both sides.
const pollInterval = 5 * time.Millisecond

// system is one of the two that are compared: where its traces are in Redis.
type system struct {
	name string
	// queued counts the messages that wait.
	queued func(ctx context.Context, b *bench) (int64, error)
	// drained tells whether every task is finished: its result stored and its message gone.
	drained func(ctx context.Context, b *bench, tasks int) (bool, error)
	// results match the keys of the results, and sum reads one.
	results string
	sum     func(ctx context.Context, b *bench, keys []string) ([]int, error)
}

var geleryKeys = system{
	name:    "gelery",
	queued:  func(ctx context.Context, b *bench) (int64, error) { return b.redis.LLen(ctx, geleryQueue).Result() },
	results: "celery-task-meta-*",
	// A message is acknowledged after its result is stored: when nothing waits and nothing is unacked, all is there.
	drained: func(ctx context.Context, b *bench, _ int) (bool, error) {
		pipe := b.redis.TxPipeline()
		waiting, unacked := pipe.LLen(ctx, geleryQueue), pipe.HLen(ctx, "unacked")
		_, err := pipe.Exec(ctx)
		return waiting.Val() == 0 && unacked.Val() == 0, err
	},
	sum: func(ctx context.Context, b *bench, keys []string) ([]int, error) {
		documents, err := b.redis.MGet(ctx, keys...).Result()
		if err != nil {
			return nil, err
		}
		sums := make([]int, len(keys))
		for i, d := range documents {
			var meta struct {
				Status string
				Result int
			}
			text, _ := d.(string)
			if json.Unmarshal([]byte(text), &meta) != nil || meta.Status != "SUCCESS" {
				return nil, fmt.Errorf("%s holds %q", keys[i], text)
			}
			sums[i] = meta.Result
		}
		return sums, nil
	},
}

var asynqKeys = system{
	name: "asynq",
	queued: func(ctx context.Context, b *bench) (int64, error) {
		return b.redis.LLen(ctx, "asynq:{"+asynqQueue+"}:pending").Result()
	},
	results: "asynq:{" + asynqQueue + "}:t:*",
	drained: func(ctx context.Context, b *bench, tasks int) (bool, error) {
		n, err := b.redis.ZCard(ctx, "asynq:{"+asynqQueue+"}:completed").Result()
		return n >= int64(tasks), err
	},
	sum: func(ctx context.Context, b *bench, keys []string) ([]int, error) {
		pipe := b.redis.Pipeline()
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
func (b *bench) drain(ctx context.Context, s system, concurrency int) (_ run, err error) {
	if err := b.fill(ctx, s, order{Side: s.name + "-enqueue", Tasks: b.tasks, Batch: pipelineBatch, Producers: pipelineProducers}); err != nil {
		return run{}, err
	}
	worker, err := b.start(ctx, order{Side: s.name + "-worker", Concurrency: concurrency}, b.workCore)
	if err != nil {
		return run{}, err
	}
	defer func() { err = errors.Join(err, worker.stop()) }()
	begun, err := worker.next()
	if err != nil {
		return run{}, err
	}
	cost := b.costsOf(worker.cmd.Process.Pid)
	if err := b.awaitDrained(ctx, s, b.tasks); err != nil {
		return run{}, err
	}
	r := cost.run(b.tasks, time.Since(time.Unix(0, begun.Started)))
	return r, b.verify(ctx, s)
}

// fill empties the server and has the tasks of an order sent.
func (b *bench) fill(ctx context.Context, s system, o order) error {
	if err := b.redis.FlushAll(ctx).Err(); err != nil {
		return err
	}
	if _, err := b.produce(ctx, o, b.workCore); err != nil {
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

// verify reads all results. Task i computed i+1, so the sums must be 1 to Tasks, each once.
func (b *bench) verify(ctx context.Context, s system) error {
	seen := make([]bool, b.tasks+1)
	count := 0
	for cursor := uint64(0); ; {
		keys, next, err := b.redis.Scan(ctx, cursor, s.results, 1000).Result()
		if err != nil {
			return err
		}
		if len(keys) > 0 {
			sums, err := s.sum(ctx, b, keys)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			for _, sum := range sums {
				if sum < 1 || sum > b.tasks {
					return fmt.Errorf("%s computed %d; expected 1 to %d", s.name, sum, b.tasks)
				}
				if !seen[sum] { // SCAN may show a key twice
					seen[sum] = true
					count++
				}
			}
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	if count != b.tasks {
		return fmt.Errorf("%s stored %d different results; expected %d", s.name, count, b.tasks)
	}
	return nil
}

// compareDrain runs the pairs at one concurrency.
func (b *bench) compareDrain(ctx context.Context, concurrency int) error {
	what := fmt.Sprintf("drain, concurrency %d", concurrency)
	p, err := b.pairsOf(what, func(s system) (run, error) { return b.drain(ctx, s, concurrency) })
	if err == nil {
		b.require(p.median() >= b.minDrain, "%s: median %.2f is below %.2f", what, p.median(), b.minDrain)
	}
	return err
}
