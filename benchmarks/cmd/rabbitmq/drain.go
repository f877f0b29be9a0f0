package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gelery/gelery/benchmarks/internal/lab"
)

// filled fills the queue for a drain.
func (b *bench) filled(ctx context.Context, kind string) error {
	o := b.order("gelery-publish", kind, noResults)
	o.Batch, o.Producers = batch, producers
	return b.fill(ctx, o)
}

// drainGelery measures from the start of a worker until the last result is stored. All results are read afterwards: every
// sum must be there exactly once. What the worker has not acknowledged when it stops is back in the queue, which must be
// empty.
func (b *bench) drainGelery(ctx context.Context, kind string, concurrency int) (r lab.Run, err error) {
	if err := b.filled(ctx, kind); err != nil {
		return r, err
	}
	o := b.order("gelery-worker", kind, redisResults)
	o.Concurrency = concurrency
	worker, err := b.place.Start(ctx, o)
	if err != nil {
		return r, err
	}
	begun, err := worker.Next()
	if err == nil {
		cost := b.costsOf(worker)
		err = b.awaitResults(ctx, b.tasks)
		r = cost.Run(b.tasks, time.Since(time.Unix(0, begun.Started)))
	}
	if err := errors.Join(err, worker.Stop()); err != nil {
		return r, err
	}
	return r, errors.Join(b.expectDrained(ctx), lab.Verify(ctx, b.redis, lab.GeleryResults, b.tasks, lab.GelerySums))
}

// drainMinimal measures from the start of a consumer until it has acknowledged the last message.
func (b *bench) drainMinimal(ctx context.Context, kind string, concurrency int) (r lab.Run, err error) {
	if err := b.filled(ctx, kind); err != nil {
		return r, err
	}
	o := b.order("minimal-consume", kind, noResults)
	o.Concurrency = concurrency
	consumer, err := b.place.Start(ctx, o)
	if err != nil {
		return r, err
	}
	cost := b.costsOf(consumer)
	done, err := consumer.Next()
	if err == nil {
		r = cost.Run(b.tasks, time.Duration(done.Seconds*float64(time.Second)))
	}
	return r, errors.Join(err, consumer.Stop(), b.expectDrained(ctx))
}

// awaitResults waits until so many results are stored. Redis holds nothing else.
func (b *bench) awaitResults(ctx context.Context, results int) error {
	var n int64
	err := lab.Until(ctx, pollInterval, func() (done bool, err error) {
		n, err = b.redis.DBSize(ctx).Result()
		return n >= int64(results), err
	})
	if err != nil {
		return fmt.Errorf("%d of %d results are stored: %w", n, results, err)
	}
	return nil
}

// compareDrain runs the pairs at one concurrency.
func (b *bench) compareDrain(ctx context.Context, kind string, concurrency int) error {
	what := fmt.Sprintf("drain, %s queue, concurrency %d, prefetch %d", kind, concurrency, prefetch*concurrency)
	p, err := b.compare(what, b.tasks, func() (lab.Run, error) { return b.drainGelery(ctx, kind, concurrency) },
		func() (lab.Run, error) { return b.drainMinimal(ctx, kind, concurrency) })
	if err == nil {
		b.require(p.Median() >= b.minDrain, "%s: median %.2f is below %.2f", what, p.Median(), b.minDrain)
	}
	return err
}
